"""Limits a recurring event to once per key and period, so that repeats are not recorded."""

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic

from cachetools import TTLCache


class Throttle:
    """Lets each key through once per ``period_s`` seconds; safe to share between threads.

    Memory is bounded: beyond ``max_keys`` keys, the one recorded longest ago is dropped, and is
    then due again before its period has ended.
    """

    def __init__(
        self, period_s: float, max_keys: int, timer: Callable[[], float] = monotonic
    ) -> None:
        self._recorded: TTLCache[Hashable, None] = TTLCache(max_keys, period_s, timer)
        self._lock = Lock()

    def due(self, key: Hashable) -> bool:
        """Whether the key was not recorded within the period."""
        with self._lock:
            return key not in self._recorded

    def record(self, key: Hashable) -> None:
        """Starts the key's period; call it once the work has succeeded."""
        with self._lock:
            self._recorded[key] = None

    def claim(self, key: Hashable) -> bool:
        """``due`` and ``record`` in one step: exactly one of several threads gets True."""
        with self._lock:
            if key in self._recorded:
                return False
            self._recorded[key] = None
            return True
