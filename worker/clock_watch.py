"""Notices that the database's clock was turned, by which a lease seems to have run out."""

from collections.abc import Callable
from datetime import datetime
from time import monotonic

from lumbar.log import get_logger

log = get_logger()

TOLERANCE_S = 5.0
# Of a clock that is turned again and again: how long that holds things up, and after that how long
# after each turn. Living workers extend their leases within it. Beyond twice as long, not at all.
LONGEST_S, SETTLED_S = 600.0, 30.0


class ClockWatch:
    """Compares the database's clock with this process's monotonic one."""

    def __init__(self, timer: Callable[[], float] = monotonic) -> None:
        self._timer = timer
        self._before: tuple[datetime, float] | None = None
        self._turned_at = float("-inf")
        self._unsteady_from = float("-inf")

    def read(self, now: datetime) -> float:
        """Seconds since the clock was last turned, as far as is known; ``now``: what it shows.

        Infinite for a clock that has been turned again and again for long.
        """
        timer_s = self._timer()
        if self._before is not None:
            before, before_s = self._before
            turned_s = (now - before).total_seconds() - (timer_s - before_s)
            if abs(turned_s) > TOLERANCE_S:
                if timer_s - self._turned_at > LONGEST_S:
                    self._unsteady_from = timer_s
                self._turned_at = timer_s
                log.warning("clock.turned", by_s=round(turned_s))
        self._before = now, timer_s
        steady_s, unsteady_s = timer_s - self._turned_at, timer_s - self._unsteady_from
        if unsteady_s >= (LONGEST_S if steady_s >= SETTLED_S else 2 * LONGEST_S):
            return float("inf")
        return steady_s
