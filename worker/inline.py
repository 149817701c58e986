"""The notifier without a broker: the sweep's own process does the jobs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from db.models import JobKind
from lumbar.log import get_logger

log = get_logger()

Task = Callable[[], bool]  # does one due job; False when there was none


class InlineNotifier:
    """Runs jobs in two threads: one for those that need the networks, one for deliveries.

    A slow PACS thus delays no analysis. The kinds that share a thread take turns, one job each.
    """

    def __init__(self, tasks: dict[JobKind, Task]) -> None:
        self._tasks = tasks
        reading, sending = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("reading", "sending")
        )
        self._pools = {kind: sending if kind is JobKind.DELIVER else reading for kind in tasks}
        self._queued: set[JobKind] = set()
        self._closing = Event()

    def notify(self, kind: JobKind, due: int) -> None:
        """Queues the kind in its thread, if it is not; it stays queued while jobs of it are due."""
        if due and kind not in self._queued:
            self._queued.add(kind)
            self._pools[kind].submit(self._do_one, kind)

    def _do_one(self, kind: JobKind) -> None:
        """Does one job, then queues the kind again at the end."""
        try:
            if not self._closing.is_set() and self._tasks[kind]() and not self._closing.is_set():
                self._pools[kind].submit(self._do_one, kind)
                return
        # A job's own failure goes into its row; this error kept it from being written there.
        except Exception as error:  # noqa: BLE001
            log.error("inline.fault", kind=str(kind), error=type(error).__name__)
        self._queued.discard(kind)

    def close(self) -> None:
        """Waits for the jobs that run; starts no other."""
        self._closing.set()
        for pool in set(self._pools.values()):
            pool.shutdown(wait=True)
