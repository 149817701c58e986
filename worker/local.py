"""The doorbell without a broker: the sweep's own process does the jobs, straight from the job table."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from db.tables import JobKind

log = structlog.get_logger()

Task = Callable[[int], None]


class LocalDoorbell:
    """One lane a kind of job, so that a slow PACS does not hold up an analysis; a free lane takes the next job."""

    def __init__(self, tasks: dict[JobKind, Task]) -> None:
        self._tasks = tasks
        self._lanes = {kind: ThreadPoolExecutor(1, thread_name_prefix=kind) for kind in tasks}
        self._busy: dict[JobKind, Future[None]] = {}

    def ring(self, job_id: int, kind: JobKind) -> bool:
        if kind in self._busy and not self._busy[kind].done():
            return False
        self._busy[kind] = self._lanes[kind].submit(self._tasks[kind], job_id)
        self._busy[kind].add_done_callback(lambda done: _note(done, job_id))
        return True

    def close(self) -> None:
        """Waits for the jobs in hand."""
        for lane in self._lanes.values():
            lane.shutdown(wait=True)


def _note(done: Future[None], job_id: int) -> None:
    """A job's failure is in its row; here stands only what kept it from being written there."""
    if error := done.exception():
        log.error("job.abandoned", job=job_id, error=type(error).__name__)
