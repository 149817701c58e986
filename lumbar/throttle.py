"""At most once per period and key: for what is worth recording, but not every time it happens."""

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic

from cachetools import TTLCache


class Throttle:
    """Lets each key through once per ``period_s`` seconds; safe to share between threads.

    Memory is bounded: of more than ``max_keys`` keys, the one recorded longest ago is forgotten
    and so is due again early.
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
        """Starts the key's period; to be called once the recorded work has succeeded."""
        with self._lock:
            self._recorded[key] = None

    def claim(self, key: Hashable) -> bool:
        """``due`` and ``record`` in one step: of several threads exactly one gets True."""
        with self._lock:
            if key in self._recorded:
                return False
            self._recorded[key] = None
            return True
