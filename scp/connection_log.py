"""The log of what ended or was odd about connections, in which a flood is summed.

Of what one peer does in a period, the first lines are its own; what follows is counted, and logged
at the end of the period in one line for each event and reason that says how often.
"""

from collections import Counter
from threading import Lock, Timer
from time import monotonic

from lumbar.closing import Closing
from lumbar.log import get_logger

log = get_logger()

PERIOD_S = 60.0
FIRST = 50  # lines of one event, reason and peer in a period
MAX_LINES = 500  # in a period, sums aside


class ConnectionLog(Closing):
    """Logs events of connections, from any thread; closing it logs what was only counted."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._logged: Counter[tuple[str, str, str]] = Counter()
        self._counted: Counter[tuple[str, str]] = Counter()
        self._began_at = monotonic()
        self._end: Timer | None = None

    def warn(self, event: str, *, peer: str, calling: str, why: str) -> None:
        """Logs what we refuse or end."""
        if self._has_line(event, peer, why):
            log.warning(event, peer=peer, calling=calling, why=why)

    def note(self, event: str, *, peer: str, calling: str, why: str) -> None:
        """Logs what the peer does."""
        if self._has_line(event, peer, why):
            log.info(event, peer=peer, calling=calling, why=why)

    def close(self) -> None:
        """Ends the period."""
        with self._lock:
            if self._end is not None:
                self._end.cancel()
        self._log_counted()

    def _has_line(self, event: str, peer: str, why: str) -> bool:
        """Whether it has a line of its own; otherwise it has been counted."""
        with self._lock:
            if self._end is None and monotonic() - self._began_at >= PERIOD_S:
                self._begin()
            one = (event, why, peer)
            if self._logged[one] < FIRST and self._logged.total() < MAX_LINES:
                self._logged[one] += 1
                return True
            self._counted[event, why] += 1
            if self._end is None:
                self._end = Timer(PERIOD_S, self._log_counted)
                self._end.daemon = True
                self._end.start()
            return False

    def _begin(self) -> None:
        self._began_at = monotonic()
        self._logged.clear()
        self._counted.clear()

    def _log_counted(self) -> None:
        with self._lock:
            counted = dict(self._counted)
            self._end = None
            self._begin()
        for (event, why), times in counted.items():
            log.warning(event, why=why, times=times)
