"""Accepts connections to the page, as many as there is room for.

uvicorn's own limit is a number of connections beyond which everybody gets 503. Here nobody is
refused for connections that only wait: where there is no room, one that has not sent a whole
request, or has not read its response, is ended: the slowest first. A browser sends its request at
once, so a flood of silent or half-sent connections ends its own. Beyond ``MAX_CONNECTIONS``
requests that are being answered, only ``/healthz`` is, which takes no time.
"""

import asyncio
import errno
import logging
import resource
import socket
from collections import Counter
from contextlib import suppress
from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from lumbar.addresses import network_of
from lumbar.log import get_logger
from web.connections import HEAD_S, Connection
from web.hosts import Networks, is_in

log = get_logger()

MAX_CONNECTIONS = 512
RESERVE = 32  # further connections
DESCRIPTORS = 4096  # of files, asked for; connections may be half of what the system permits
MAX_INCOMPLETE = 100  # connections of one address that are not complete
MAX_REQUESTS = 100  # of one client that are being answered
CHECK_S = 0.5  # between two looks at all connections
CLOSING_S = 0.01  # after which a connection that was ended has given its descriptor back
SUMMARY_S = 60  # between two log lines on what was refused
UNLIMITED = "/healthz"
# What uvicorn logs about each malformed request; we log their number.
_COUNTED = ("Invalid HTTP request received.", "Unsupported upgrade request.")


class Listener:
    """Accepts a server's connections, within the limits of this module.

    ``proxies``: networks whose connections are those of many clients, as loopback's may be.
    """

    def __init__(
        self, config: Config, state: ServerState, listening: socket.socket, proxies: Networks
    ) -> None:
        self._config, self._state = config, state
        self._listening, self._proxies = listening, proxies
        self._connections: set[Connection] = set()
        self._refused: Counter[str] = Counter()
        self._maximum = min(MAX_CONNECTIONS, _descriptors() // 2)
        listening.setblocking(False)

    async def run(self) -> None:
        """Accepts connections until it is cancelled."""
        checks = asyncio.create_task(self._check())
        try:
            while True:
                await self._accept()
                await asyncio.sleep(0)  # as it does not wait while others are coming
        finally:
            checks.cancel()
            for connection in self._connections:
                if connection.transport is None:
                    connection.end()
            self._log_refused()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            accepted, address = await loop.sock_accept(self._listening)
        except OSError as error:  # no descriptors or no memory; or the client is gone already
            if error.errno != errno.ECONNABORTED:
                self._refused["not_accepted"] += 1
                incomplete = self._incomplete()
                self._end_slowest(incomplete, loop.time())
                await asyncio.sleep(CLOSING_S if incomplete else CHECK_S)
            return
        peer = network_of(address[0])
        of_many = is_loopback(address[0]) or is_in(address[0], self._proxies)
        self._make_room(None if of_many else peer, loop.time())
        if len(self._connections) >= self._maximum + RESERVE:
            self._refused["without_room"] += 1
            accepted.close()
            return
        connection = Connection(self._config, self._state, peer, self._count_malformed)
        self._connections.add(connection)
        connection.connecting = loop.create_task(self._connect(connection, accepted))
        connection.connecting.add_done_callback(lambda _: _close_unused(connection, accepted))

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        within_s = HEAD_S if self._config.ssl else None
        with suppress(OSError):  # a handshake that failed, or took too long
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._config.ssl,
                ssl_handshake_timeout=within_s,
                ssl_shutdown_timeout=within_s,
            )

    def _make_room(self, peer: str | None, now: float) -> None:
        """Ends the slowest connection that is not complete where there are too many, or of a peer.

        ``peer``: None where it has the connections of many clients.
        """
        self._forget_closed()
        incomplete = self._incomplete()
        own = [one for one in incomplete if one.peer == peer]
        if len(own) >= MAX_INCOMPLETE:
            self._end_slowest(own, now)
        elif len(self._connections) >= self._maximum:
            self._end_slowest(incomplete, now)

    def _incomplete(self) -> list[Connection]:
        return [one for one in self._connections if not one.is_complete]

    def _end_slowest(self, among: list[Connection], now: float) -> None:
        if among:
            self._end(min(among, key=lambda one: one.slowness(now)), "ended_for_room")

    def _forget_closed(self) -> None:
        self._connections = {one for one in self._connections if one.is_open}

    def _end(self, connection: Connection, why: str) -> None:
        self._refused[why] += 1
        self._connections.discard(connection)
        connection.end()

    def _count_malformed(self) -> None:
        self._refused["malformed"] += 1

    async def _check(self) -> None:
        """Ends those that are too slow, and logs now and then how many there were."""
        loop = asyncio.get_running_loop()
        logged = loop.time()
        while True:
            await asyncio.sleep(CHECK_S)
            now = loop.time()
            self._forget_closed()
            for connection in [one for one in self._connections if one.is_late(now)]:
                self._end(connection, "too_slow")
            if now - logged >= SUMMARY_S:
                self._log_refused()
                logged = now

    def _log_refused(self) -> None:
        if self._refused:
            log.warning("web.connections_refused", **self._refused)
            self._refused.clear()


class RequestLimits:
    """An application that answers so many requests at once, and so many of one client.

    ``prefix``: see ``web.prefix``.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._unlimited = {f"{start}{UNLIMITED}" for start in ("", prefix)}
        self._answering: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unlimited:
            await self._app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        client = network_of(address)
        if self._answering.total() >= MAX_CONNECTIONS:
            await _refusal(503, "too many requests are being answered")(scope, receive, send)
        elif self._answering[client] >= MAX_REQUESTS and not is_loopback(address):
            await _refusal(429, "too many of your requests are being answered")(
                scope, receive, send
            )
        else:
            await self._answer(client, scope, receive, send)

    async def _answer(self, client: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._answering[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._answering[client] -= 1
            if not self._answering[client]:
                del self._answering[client]


def count_instead_of_logging() -> None:
    """Keeps a flood of malformed requests out of the log: ``Listener`` counts them."""
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg not in _COUNTED)


def is_loopback(host: str) -> bool:
    """Whether it is the address, or the name, of this machine for itself."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _refusal(status: int, why: str) -> PlainTextResponse:
    headers = {"Retry-After": "5", "Connection": "close"}
    return PlainTextResponse(f"{why}; try again in a moment\n", status, headers=headers)


def _close_unused(connection: Connection, accepted: socket.socket) -> None:
    if connection.transport is None:
        connection.is_open = False
        accepted.close()


def _descriptors() -> int:
    """How many files this process may have open, once as many as it needs were asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        soft = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
