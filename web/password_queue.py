"""Passwords are looked at one at a time by a thread of its own, and few requests may wait for it.

A hash takes 64 MiB, so memory is bounded; and requests that wait occupy none of the threads that
serve all other pages. Beyond the limits a request is refused at once, having cost nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fastapi import Request

from lumbar.errors import Permanent

AT_ONCE = 1  # hashes
MAX_WAITING, MAX_STRANGERS = 32, 24  # requests; the other places are for browsers that are known
MAX_OF_ONE = 8  # requests of one address, or of one user whom we know
RETRY_AFTER_S = 2

P = ParamSpec("P")
T = TypeVar("T")


class TooBusy(Permanent):
    """Too many passwords are being looked at; try again in a moment."""

    retry_after_s = RETRY_AFTER_S


class PasswordQueue:
    """One per process; used by the event loop's thread only."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "passwords")
        self._waiting: Counter[str] = Counter()
        self._strangers = 0

    async def run(
        self,
        who: str,
        stranger: bool,
        function: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Calls a function that makes or checks hashes, when it is its turn.

        ``who``: the address or user for whom it is.

        Raises:
            TooBusy: too many requests wait already, of everybody or of ``who``.
        """
        if (
            self._waiting.total() >= MAX_WAITING
            or self._waiting[who] >= MAX_OF_ONE
            or (stranger and self._strangers >= MAX_STRANGERS)
        ):
            raise TooBusy("many people are signing in just now; try again in a moment")
        self._waiting[who] += 1
        self._strangers += stranger
        try:
            future = self._threads.submit(function, *args, **kwargs)
            return await asyncio.wrap_future(future)
        finally:
            self._strangers -= stranger
            self._waiting[who] -= 1
            self._waiting += Counter()  # forgets those of whom none waits


def queue_of(request: Request) -> PasswordQueue:
    queue: PasswordQueue = request.app.state.passwords
    return queue
