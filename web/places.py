"""Few large responses at once for each user, so that one cannot use up memory or the decoder.

A request that waits for its place holds no thread, and keeps its place until its response has been
sent.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from web.password_queue import TooBusy

WAIT_S = 30  # for a place
BUSY = "too much is being sent to you just now; try again in a moment"

T = TypeVar("T")


class Places:
    """One per process; used by the event loop's thread only.

    ``at_once``: responses of one user; ``waiting``: further requests of theirs, and ``of_all``:
    requests of everybody, beyond which others are refused.
    """

    def __init__(self, at_once: int, waiting: int, of_all: int) -> None:
        self._at_once, self._of_one, self._of_all = at_once, at_once + waiting, of_all
        self._requests: Counter[int] = Counter()
        self._free: dict[int, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def hold(self, user_id: int) -> AsyncIterator[None]:
        """Has a place for the user, once there is one.

        Raises:
            TooBusy: too many requests wait, or this one has waited for too long.
        """
        if self._requests[user_id] >= self._of_one or self._requests.total() >= self._of_all:
            raise TooBusy(BUSY)
        self._requests[user_id] += 1
        free = self._free.setdefault(user_id, asyncio.Semaphore(self._at_once))
        try:
            await within_time(free.acquire())
            try:
                yield
            finally:
                free.release()
        finally:
            self._requests[user_id] -= 1
            if not self._requests[user_id]:
                del self._requests[user_id], self._free[user_id]


async def within_time(waiting: Awaitable[T]) -> T:
    """What it waits for.

    Raises:
        TooBusy: it does not come in time.
    """
    try:
        return await asyncio.wait_for(waiting, WAIT_S)
    except TimeoutError as error:
        raise TooBusy(BUSY) from error


def _place_among(name: str) -> Callable[[Request], AsyncIterator[None]]:
    """A dependency, to follow the one that authenticates the user."""

    async def place(request: Request) -> AsyncIterator[None]:
        places: Places = getattr(request.app.state, name)
        async with places.hold(request.state.actor.user_id):
            yield

    return place


FramePlace = Annotated[None, Depends(_place_among("frames"))]
ExportPlace = Annotated[None, Depends(_place_among("exports"))]
