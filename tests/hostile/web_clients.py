"""Clients of the page that speak no more HTTP than they want to."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import uvicorn

from tests.peers import free_port
from tests.system import wait_until
from web import server
from web.listener import RequestLimits

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
ORDINARY = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Page:
    """A server on loopback; ``tls`` trusts its certificate, if it has one."""

    port: int
    tls: ssl.SSLContext | None = None

    def connect(self, source: str = "127.0.0.1", receive_buffer: int = 0) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 30, (source, 0))
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        return connection

    def sent(self, content: bytes, source: str = "127.0.0.1") -> socket.socket:
        connection = self.connect(source)
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_hostname="127.0.0.1")
        connection.sendall(content)
        return connection

    def status(self, request: bytes = REQUEST, source: str = "127.0.0.1") -> int:
        """Of one request on a connection of its own; 0: it was closed without a response."""
        with self.sent(request, source) as connection:
            return status_of(connection)


def status_of(connection: socket.socket) -> int:
    """The status of the next response; 0: there is none, as the connection has been closed."""
    with suppress(ConnectionError), HTTPResponse(connection) as response:
        response.begin()
        response.read()
        return response.status
    return 0


def all_received(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has ended the connection; consumes what has come."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.setblocking(True)
    return True


@contextmanager
def listening(
    app: Any, proxy: str = "", certificate: tuple[Path, Path] | None = None
) -> Iterator[Page]:
    """Serves an ASGI application as the page is served."""
    stop, page = threading.Event(), Page(free_port())
    files: dict[str, Any] = {}
    if certificate is not None:
        page.tls = ssl.create_default_context(cafile=str(certificate[0]))
        page.tls.check_hostname = False  # it has only a common name
        files = dict(zip(("ssl_certfile", "ssl_keyfile"), map(str, certificate), strict=True))
    config = uvicorn.Config(
        RequestLimits(app, ""),
        port=page.port,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=bool(proxy),
        forwarded_allow_ips=proxy or None,
        timeout_graceful_shutdown=1,
        **files,
    )
    proxies = [ip_network(proxy)] if proxy else []
    thread = threading.Thread(target=lambda: asyncio.run(server._serve(config, proxies, stop)))
    thread.start()

    def answers() -> bool:
        with suppress(OSError):
            return page.status() == 200
        return False

    try:
        wait_until(answers, 20, lambda: "the server does not listen")
        yield page
    finally:
        stop.set()
        thread.join(20)


class Answers:
    """An application: ``/hang`` waits, ``/large`` is 16 MiB, ``/early`` does not wait for a body."""

    def __init__(self) -> None:
        self.begun = self.ended = self.received = 0  # requests; bytes of bodies
        self.go_on = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        try:
            more = scope["path"] != "/early"
            while more:
                message = await receive()
                self.received += len(message.get("body", b""))
                more = message.get("more_body", False)
            while scope["path"] == "/hang" and not self.go_on:
                await asyncio.sleep(0.01)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(256 if scope["path"] == "/large" else 0):
                await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
            await send({"type": "http.response.body", "body": b"answered"})
        finally:
            self.ended += 1
