"""Silent, half-sent and slow connections to the page: they end, and nobody else notices."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.browser.served import new_site, serving
from tests.certificates import self_signed
from tests.hostile.web_clients import (
    ORDINARY,
    REQUEST,
    Answers,
    Page,
    all_received,
    is_closed,
    listening,
    status_of,
)
from tests.peers import free_port
from tests.system import wait_until
from web import connections, listener

pytestmark = pytest.mark.serial

MANY = 700
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b"
HALF_BODY = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nname=anna"
HANG = b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    site = new_site(tmp_path_factory.mktemp("home"))
    with serving(site):
        yield Page(site.settings.web_port)


def limit(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    for name, value in limits.items():
        for module in (connections, listener):
            monkeypatch.setattr(module, name, value, raising=False)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY], ids=["silent", "head", "body"])
def test_hundreds_of_connections_without_a_whole_request_keep_nobody_out(
    page: Page, sent: bytes
) -> None:
    with ExitStack() as flood:
        for _ in range(MANY):
            flood.enter_context(page.connect()).sendall(sent)
        assert page.status(REQUEST) == 200
        assert page.status(ORDINARY) == 303  # to the sign-in page
        browsers = [flood.enter_context(page.sent(ORDINARY)) for _ in range(20)]
        assert [status_of(browser) for browser in browsers] == [303] * 20


def test_silent_handshakes_keep_nobody_out_and_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        listening(Answers(), certificate=self_signed(tmp_path, "127.0.0.1")) as page,
        ExitStack() as flood,
    ):
        for _ in range(MANY):
            flood.enter_context(page.connect())
        assert page.status(ORDINARY) == 200
        limit(monkeypatch, HEAD_S=0.3)
        assert all_received(flood.enter_context(page.connect())) == b""


@pytest.mark.parametrize("sent", [b"", b"G", HALF_HEAD], ids=["silent", "one byte", "head"])
def test_a_connection_whose_head_does_not_come_in_time_ends(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    limit(monkeypatch, HEAD_S=0.3)
    with listening(Answers()) as page, page.sent(sent) as connection:
        assert all_received(connection) == b""


def test_a_connection_that_falls_silent_between_requests_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(monkeypatch, HEAD_S=0.3)
    with listening(Answers()) as page, page.sent(ORDINARY) as connection:
        assert status_of(connection) == 200
        connection.sendall(b"G")  # ends uvicorn's own time limit
        assert all_received(connection).count(b"HTTP/1.1") == 0


def test_a_connection_that_is_used_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, HEAD_S=0.4, CHECK_S=0.02)
    app = Answers()
    with listening(app) as page, page.sent(HANG) as connection:
        silent = page.connect()
        wait_until(lambda: is_closed(silent), 20, lambda: "a silent one has not ended")
        app.go_on = True
        assert status_of(connection) == 200
        for _ in range(3):
            connection.sendall(ORDINARY)
            assert status_of(connection) == 200
        silent.close()


def test_a_body_that_trickles_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, BODY_S=0.3)
    app = Answers()
    with listening(app) as page, page.sent(HALF_BODY) as connection:
        assert all_received(connection) == b""
        wait_until(lambda: app.ended == app.begun, 20, lambda: "it is still being answered")


def test_a_body_that_comes_steadily_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, BODY_S=0.2, CHECK_S=0.02, MIN_RATE=100)
    with listening(Answers()) as page, page.sent(HALF_BODY[:-9]) as connection:
        late = page.sent(HALF_BODY)  # ends while the other is still being received
        connection.sendall(bytes(999))
        wait_until(lambda: is_closed(late), 20, lambda: "a trickling one has not ended")
        late.close()
        connection.sendall(bytes(1))
        assert status_of(connection) == 200


@pytest.mark.parametrize("kind", ["Content-Length: 1000000000000", "Transfer-Encoding: chunked"])
def test_a_body_that_goes_on_after_its_response_ends(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    limit(monkeypatch, LINGER_S=0.3)
    monkeypatch.setattr(connections, "UPLOAD", b"/early")
    head = f"POST /early HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n".encode()
    with listening(Answers()) as page, page.sent(head) as connection:
        assert status_of(connection) == 200

        def is_refused() -> bool:
            with suppress(ConnectionError):
                connection.sendall(b"1000\r\n" + bytes(2**12) + b"\r\n")
                return False
            return True

        wait_until(is_refused, 20, lambda: "the body is still being read")


def test_a_response_that_is_not_read_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, UNREAD_S=0.3)
    app = Answers()
    with listening(app) as page:
        begun = app.begun
        with page.connect(receive_buffer=4096) as connection:
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: app.ended > begun, 20, lambda: "it waits for its reader")


def test_a_response_that_is_read_slowly_comes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, UNREAD_S=0.3, CHECK_S=0.02)
    with listening(Answers()) as page:
        unread = page.sent(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with page.connect() as connection:
            connection.sendall(
                b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            received = 0
            while chunk := connection.recv(2**16):
                received += len(chunk)
        assert received > 16 * 2**20
        wait_until(lambda: is_closed(unread), 20, lambda: "an unread one has not ended")
        unread.close()


def test_an_address_that_only_waits_ends_its_own_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(monkeypatch, MAX_INCOMPLETE=5, GRACE_S=0)
    monkeypatch.setattr(listener, "is_loopback", lambda host: False)
    with listening(Answers()) as page, ExitStack() as flood:
        others = flood.enter_context(page.connect("127.0.0.3"))
        silent = [flood.enter_context(page.connect("127.0.0.2")) for _ in range(30)]
        wait_until(lambda: sum(map(is_closed, silent)) == 25, 20, lambda: "too many are open")
        assert [is_closed(one) for one in silent] == [True] * 25 + [False] * 5
        others.sendall(ORDINARY)
        assert status_of(others) == 200
        assert page.status(ORDINARY, "127.0.0.2") == 200


def test_addresses_of_one_ipv6_network_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, MAX_REQUESTS=2)
    app = Answers()
    with listening(app, proxy="127.0.0.1") as page, ExitStack() as stack:
        of = b"GET /hang HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 2001:db8:0:%d::%d\r\n\r\n"
        begun = app.begun
        for number in range(2):
            stack.enter_context(page.sent(of % (1, number)))
        wait_until(lambda: app.begun == begun + 2, 20, lambda: "the requests have not come")
        assert page.status(of % (1, 3)) == 429
        other = stack.enter_context(page.sent(of % (2, 3)))
        app.go_on = True
        assert status_of(other) == 200


def test_a_flood_of_connections_leaves_time_for_everything_else() -> None:
    async def turns_while_accepting(count: int) -> int:
        with (
            socket.create_server(("127.0.0.1", 0), backlog=count) as listening,
            ExitStack() as flood,
        ):
            for _ in range(count):
                flood.enter_context(socket.create_connection(listening.getsockname()))
            config = uvicorn.Config(Answers(), ws="none", lifespan="off", log_config=None)
            config.load()
            accepts = listener.Listener(config, ServerState(), listening, [])
            accepting = asyncio.create_task(accepts.run())
            turns = 0
            while len(accepts._connections) < count:
                await asyncio.sleep(0)
                turns += 1
            accepting.cancel()
            with suppress(asyncio.CancelledError):
                await accepting
            return turns

    assert asyncio.run(turns_while_accepting(50)) >= 50


def test_a_proxys_connections_are_many_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, MAX_INCOMPLETE=5, MAX_REQUESTS=2)
    monkeypatch.setattr(listener, "is_loopback", lambda host: False)
    app = Answers()
    with listening(app, proxy="127.0.0.1") as page, ExitStack() as stack:
        waiting = [stack.enter_context(page.connect()) for _ in range(30)]
        of = b"GET /hang HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: %s\r\n\r\n"
        begun = app.begun
        for _ in range(2):
            stack.enter_context(page.sent(of % b"192.0.2.1"))
        wait_until(lambda: app.begun == begun + 2, 20, lambda: "the requests have not come")
        assert page.status(of % b"192.0.2.1") == 429
        other = stack.enter_context(page.sent(of % b"192.0.2.2"))
        wait_until(lambda: app.begun == begun + 3, 20, lambda: "the other's has not come")
        assert not any(map(is_closed, waiting))
        app.go_on = True
        assert status_of(other) == 200
        wait_until(lambda: app.ended == app.begun, 20, lambda: "they are still being answered")
        assert page.status(of % b"192.0.2.1") == 200


def test_readers_that_do_not_read_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, MAX_CONNECTIONS=5, RESERVE=0, GRACE_S=0, CHECK_S=0.02)
    app = Answers()
    with listening(app) as page, ExitStack() as stack:
        begun = app.begun
        for _ in range(5):
            unread = stack.enter_context(page.connect(receive_buffer=4096))
            unread.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: app.begun == begun + 5, 20, lambda: "the requests have not come")
        wait_until(lambda: page.status(ORDINARY) == 200, 20, lambda: "nobody else is answered")


def test_monitoring_is_answered_when_nothing_else_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, MAX_CONNECTIONS=5)
    app = Answers()
    with listening(app) as page, ExitStack() as stack:
        begun = app.begun
        for _ in range(5):
            stack.enter_context(page.sent(HANG))
        wait_until(lambda: app.begun == begun + 5, 20, lambda: "the requests have not come")
        for _ in range(3):
            assert page.status(ORDINARY) == 503
            assert page.status(REQUEST) == 200
        silent = [stack.enter_context(page.connect()) for _ in range(100)]
        assert page.status(REQUEST) == 200
        assert sum(map(is_closed, silent)) >= 100 - listener.RESERVE
        app.go_on = True
        wait_until(lambda: page.status(ORDINARY) == 200, 20, lambda: "it does not recover")


def test_an_upload_that_comes_fast_is_not_ended_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(monkeypatch, MAX_CONNECTIONS=5, GRACE_S=0)
    head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    app = Answers()
    with listening(app) as page, ExitStack() as stack:
        upload = stack.enter_context(page.sent(head % 2**20))
        for part in range(1, 21):
            upload.sendall(bytes(2**15))
            wait_until(lambda: app.received >= part * 2**15, 20, lambda: "it has not come")  # noqa: B023
            stack.enter_context(page.sent(HALF_BODY))
        upload.sendall(bytes(2**20 - 20 * 2**15))
        assert status_of(upload) == 200


@pytest.mark.parametrize("maximum", [0, 512], ids=["within the descriptors", "beyond them"])
def test_a_page_without_descriptors_goes_on_accepting(maximum: int) -> None:
    page = Page(free_port())
    command = [sys.executable, "-m", "tests.hostile.web_process"]
    arguments = [str(page.port), "64", str(maximum)]
    with subprocess.Popen([*command, *arguments]) as process, ExitStack() as flood:
        try:
            wait_until(lambda: answers(page), 30, lambda: "the page does not answer")
            for _ in range(200):
                flood.enter_context(page.connect())
            assert page.status(ORDINARY) == 200
            assert process.poll() is None
        finally:
            process.terminate()


def answers(page: Page) -> bool:
    with suppress(OSError):
        return page.status() == 200
    return False


def test_what_was_refused_is_logged_as_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logged: list[dict[str, object]] = []
    monkeypatch.setattr(
        listener.log,
        "warning",
        lambda event, **fields: logged.append({event: fields}),
        raising=False,
    )
    with listening(Answers()) as page:
        for _ in range(7):
            assert page.status(b"no request\r\n\r\n") == 400
    assert logged == [{"web.connections_refused": {"malformed": 7}}]
    assert not caplog.records
