"""The doorbell without a broker: the sweep's own process does the jobs, straight from the job table."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import structlog

from db.tables import JobKind

log = structlog.get_logger()

Task = Callable[[], bool]  # does one due job; False when there was none


class LocalDoorbell:
    """One lane a kind of job, so that a slow PACS does not hold up an analysis."""

    def __init__(self, tasks: dict[JobKind, Task]) -> None:
        self._tasks = tasks
        self._lanes = {kind: ThreadPoolExecutor(1, thread_name_prefix=kind) for kind in tasks}
        self._busy: dict[JobKind, Future[None]] = {}
        self._closing = Event()

    def ring(self, kind: JobKind, due: int) -> None:
        """A free lane starts; it goes on until nothing is due."""
        if due and (kind not in self._busy or self._busy[kind].done()):
            self._busy[kind] = self._lanes[kind].submit(self._work, self._tasks[kind])
            self._busy[kind].add_done_callback(lambda done: _note(done, kind))

    def _work(self, task: Task) -> None:
        while not self._closing.is_set() and task():
            pass

    def close(self) -> None:
        """Waits for the jobs in hand; takes no other."""
        self._closing.set()
        for lane in self._lanes.values():
            lane.shutdown(wait=True)


def _note(done: Future[None], kind: JobKind) -> None:
    """A job's failure is in its row; here stands only what kept it from being written there."""
    if error := done.exception():
        log.error("lane.broken", kind=str(kind), error=type(error).__name__)
