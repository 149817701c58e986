"""One user's large responses: few at once, the next ones wait without a thread, others get 429."""

import asyncio
import threading
from contextlib import AsyncExitStack

import numpy as np
import pytest

from db.ingest import ingest
from db.models import UserRole
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.site_with_studies import open_site
from tests.integration.web_client import browser_client
from tests.system import wait_until
from web import images, places
from web.app import create_app
from web.password_queue import TooBusy
from web.places import Places

FRAME = f"/studies/{ROOT}.1/instances/{ROOT}.1.1.1/frames/0"


@pytest.fixture
def site(tmp_path):
    site = open_site(tmp_path)
    ingest(site.database, site.store, arrival(make_slice()))
    yield site
    site.database.close()


def test_a_place_is_free_once_the_one_before_is_given_back():
    async def orders() -> list[str]:
        seats, happened = Places(at_once=2, waiting=1, of_all=10), []
        leave = asyncio.Event()

        async def one(name: str, user_id: int) -> None:
            async with seats.hold(user_id):
                happened.append(name)
                await leave.wait()

        tasks = [asyncio.create_task(one(f"a{number}", 1)) for number in range(3)]
        tasks.append(asyncio.create_task(one("b", 2)))
        await asyncio.sleep(0.01)
        with pytest.raises(TooBusy):
            async with seats.hold(1):
                pass
        happened.append("left")
        leave.set()
        await asyncio.gather(*tasks)
        async with AsyncExitStack() as all_free:
            for _ in range(2):
                await all_free.enter_async_context(seats.hold(1))
        return happened

    happened = asyncio.run(orders())
    assert sorted(happened[:3]) == ["a0", "a1", "b"]
    assert happened[3:] == ["left", "a2"]


def test_nobody_waits_for_a_place_for_ever(monkeypatch):
    monkeypatch.setattr(places, "WAIT_S", 0.05)

    async def second() -> None:
        seats = Places(at_once=1, waiting=1, of_all=10)
        async with seats.hold(1):
            with pytest.raises(TooBusy):
                async with seats.hold(1):
                    pass
        async with seats.hold(1):  # what gave up holds no place
            pass

    asyncio.run(second())


@pytest.mark.parametrize("path", [FRAME, "/jobs.csv", "/quarantine.csv", "/findings.csv"])
def test_a_user_with_too_many_large_responses_is_told_to_wait(site, path):
    app = create_app(site)
    app.state.frames = app.state.exports = Places(at_once=0, waiting=0, of_all=10)
    response = browser_client(app, UserRole.ADMIN).get(path)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "2")


@pytest.mark.parametrize("path", [FRAME, "/jobs.csv", "/quarantine.csv", "/findings.csv"])
def test_a_place_is_given_back_after_the_response(site, path):
    app = create_app(site)
    app.state.frames = app.state.exports = Places(at_once=1, waiting=0, of_all=1)
    client = browser_client(app, UserRole.ADMIN)
    assert [client.get(path).status_code for _ in range(3)] == [200] * 3


def test_slices_that_are_read_slowly_leave_the_threads_to_others(site, monkeypatch):
    begun, go_on = [], threading.Event()

    def slow(path, frame):
        begun.append(path)
        assert go_on.wait(30)
        return np.ones((8, 8), np.float32)

    monkeypatch.setattr(images, "read_slice", slow)
    app = create_app(site)
    viewers = [browser_client(app, UserRole.VIEWER, f"viewer{number}") for number in range(50)]
    statuses: list[int] = []
    requests = [
        threading.Thread(target=lambda one=one: statuses.append(one.get(FRAME).status_code))
        for one in viewers
    ]
    for request in requests:
        request.start()
    try:
        wait_until(lambda: len(begun) == 2, 20, lambda: "no slice is being read")
        assert viewers[0].get("/").status_code == 200
        assert len(begun) == 2
    finally:
        go_on.set()
        for request in requests:
            request.join()
    assert statuses == [200] * 50
