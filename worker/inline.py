"""The notifier without a broker: the sweep's own process does the jobs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from db.models import JobKind
from lumbar.log import get_logger

log = get_logger()

Task = Callable[[], bool]  # does one due job; False when there was none


class InlineNotifier:
    """Runs jobs in a thread of their own; the kinds take turns, one job each."""

    def __init__(self, tasks: dict[JobKind, Task]) -> None:
        self._tasks = tasks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reading")
        self._queued: set[JobKind] = set()
        self._closing = Event()

    def notify(self, kind: JobKind, due: int) -> None:
        """Queues the kind, if it is not; it stays queued while jobs of it are due."""
        if due and kind not in self._queued:
            self._queued.add(kind)
            self._pool.submit(self._do_one, kind)

    def _do_one(self, kind: JobKind) -> None:
        """Does one job, then queues the kind again behind the others."""
        try:
            if not self._closing.is_set() and self._tasks[kind]() and not self._closing.is_set():
                self._pool.submit(self._do_one, kind)
                return
        # A job's own failure goes into its row; this error kept it from being written there.
        except Exception as error:  # noqa: BLE001
            log.error("inline.fault", kind=str(kind), error=type(error).__name__)
        self._queued.discard(kind)

    def close(self) -> None:
        """Waits for the jobs that run; starts no other."""
        self._closing.set()
        self._pool.shutdown(wait=True)
