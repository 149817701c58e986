"""The time that an operation with a peer may take: each wait, and all of it."""

from time import monotonic

from lumbar.peers.outcomes import TooLate, Unreachable


class Unfinished(Unreachable):
    """The time of the whole operation has passed."""

    def __init__(self, name: str, limit_s: float) -> None:
        super().__init__(f"{name} did not finish within {limit_s:g} s")


class Deadline:
    """``timeout_s`` limits each wait for the peer, ``limit_s`` the whole operation.

    It runs from its creation. ``until``: where the operation began earlier, the
    ``time.monotonic()`` at which it ends.
    """

    def __init__(
        self, name: str, timeout_s: float, limit_s: float, *, until: float | None = None
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.limit_s = limit_s
        self._until = monotonic() + limit_s if until is None else until

    def restart(self) -> None:
        """Begins the next operation."""
        self._until = monotonic() + self.limit_s

    def wait_s(self) -> float:
        """Seconds that the next wait may take, more than 0.

        Raises:
            Unfinished: the operation's time has passed.
        """
        left = self._until - monotonic()
        if left <= 0:
            raise Unfinished(self.name, self.limit_s)
        return min(self.timeout_s, left)


def require_before(not_after: float | None, name: str) -> None:
    """Checks that the time to send has not passed, by ``time.monotonic()``.

    Raises:
        TooLate: it has.
    """
    if not_after is not None and monotonic() > not_after:
        raise TooLate(f"nothing was sent to {name}: it was too late for it")
