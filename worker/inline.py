"""The notifier without a broker: the sweep's own process does the jobs, straight from the job table."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import structlog

from db.models import JobKind

log = structlog.get_logger()

Task = Callable[[], bool]  # does one due job; False when there was none


class InlineNotifier:
    """A lane for what needs the networks and one for what does not, so that a slow PACS does not hold up an analysis.

    The kinds in a lane take turns, a job each.
    """

    def __init__(self, tasks: dict[JobKind, Task]) -> None:
        self._tasks = tasks
        reading, sending = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("reading", "sending")
        )
        self._lanes = {kind: sending if kind is JobKind.DELIVER else reading for kind in tasks}
        self._busy: set[JobKind] = set()
        self._closing = Event()

    def notify(self, kind: JobKind, due: int) -> None:
        """The kind gets a place in its lane, unless it has one; it goes on until nothing is due."""
        if due and kind not in self._busy:
            self._busy.add(kind)
            self._lanes[kind].submit(self._turn, kind)

    def _turn(self, kind: JobKind) -> None:
        """One job, then the end of the lane."""
        try:
            if not self._closing.is_set() and self._tasks[kind]() and not self._closing.is_set():
                self._lanes[kind].submit(self._turn, kind)
                return
        except Exception as error:  # noqa: BLE001 - a job's failure is in its row; this kept it from being written there
            log.error("lane.broken", kind=str(kind), error=type(error).__name__)
        self._busy.discard(kind)

    def close(self) -> None:
        """Waits for the jobs in hand; takes no other."""
        self._closing.set()
        for lane in set(self._lanes.values()):
            lane.shutdown(wait=True)
