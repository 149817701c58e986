"""Bounds how many acknowledged images may wait for their rows."""

from threading import Lock
from time import monotonic, sleep

from lumbar.errors import Transient
from lumbar.store.files import Store

RECOUNT_S = 0.2
SLOW_ABOVE = 0.5  # of the maximum; above it, answers are delayed
MAX_DELAY_S = 0.5


class BacklogFull(Transient):
    """Too many images wait for their rows, because the database is away or slow."""


class Backlog:
    """The images that wait for their rows; counted again a few times a second."""

    def __init__(self, store: Store, maximum: int) -> None:
        self._store = store
        self._maximum = maximum
        self._lock = Lock()
        self._counted_at = float("-inf")
        self._count = 0

    def require_room(self) -> None:
        """Waits a little if the backlog is large, so that senders slow down before it is full.

        Raises:
            BacklogFull: it is full.
        """
        fill = self._counted() / self._maximum
        if fill >= 1:
            raise BacklogFull(
                f"{self._maximum} images wait for the database (LUMBAR_MAXIMUM_UNREGISTERED)"
            )
        if fill > SLOW_ABOVE:
            sleep(MAX_DELAY_S * (fill - SLOW_ABOVE) / (1 - SLOW_ABOVE))

    def _counted(self) -> int:
        with self._lock:
            if monotonic() - self._counted_at >= RECOUNT_S:
                self._count = self._store.unregistered()
                self._counted_at = monotonic()
            self._count += 1  # the one that asks
            return self._count
