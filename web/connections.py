"""One connection to the page: what it may send, and how slowly it may send and read.

uvicorn's protocol has no such limits. A connection is *complete* while a whole request of it is
being answered and its client reads; any other may be ended to make room (``web.listener``).
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

MAX_HEADER = 16 * 2**10  # bytes
HEAD_S = 10  # for a request's head, from the beginning of the connection or the last response
BODY_S = 20  # after which a body must have come at MIN_RATE
UNREAD_S = 30  # in which a response must be read at MIN_RATE
LINGER_S = 30  # for a body that its response did not wait for; it is not looked at
MIN_RATE = 1024  # bytes per second
GRACE_S = 1  # in which a connection is not slow yet
MAX_COOKIES = 4 * 2**10  # bytes
UPLOAD = b"/upload"  # the end of the only address that takes chunks, which browsers never send
MEAN_CHUNK, TINY_CHUNKS = 256, 64  # bytes; how many chunks may be smaller than the mean

_END = h11.EndOfMessage()


class _StrictParser(h11.Connection):
    """Refuses what another server, in front of this one, might understand otherwise (RFC 9112).

    And what takes long to parse: that would hold up all other connections.
    """

    refusal = 400  # the status of the response to what ``next_event`` refuses
    _chunked, _tiny_chunks = False, 0.0

    def next_event(self) -> Any:
        """The next event.

        Raises:
            h11.RemoteProtocolError: the request is malformed; the connection is to be closed.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._check(event)
        elif isinstance(event, h11.Data) and self._chunked:
            self._tiny_chunks += event.chunk_start - len(event.data) / MEAN_CHUNK
            self._tiny_chunks = max(self._tiny_chunks, 0)
            if self._tiny_chunks > TINY_CHUNKS:
                raise h11.RemoteProtocolError("tiny chunks")
        return event

    def _check(self, request: h11.Request) -> None:
        if why := _fault(request):
            raise h11.RemoteProtocolError(why)
        self._chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        is_upload = request.target.partition(b"?")[0].endswith(UPLOAD)
        if self._chunked and not (is_upload and request.method == b"POST"):
            self.refusal = 411
            raise h11.RemoteProtocolError("chunks")


def _fault(request: h11.Request) -> str | None:
    names = {name for name, _ in request.headers}
    version, target = request.http_version, request.target
    if version not in (b"1.0", b"1.1"):
        return "another version"
    if b"transfer-encoding" in names and (b"content-length" in names or version == b"1.0"):
        return "its length is ambiguous"  # 6.1, 6.3
    if not target.startswith(b"/") and target != b"*":
        return "a proxy's target"  # 3.2.2, 3.2.3
    fields = sum(len(name) + len(value) + 4 for name, value in request.headers)
    if len(target) + fields > MAX_HEADER:
        return "its size"  # which came at once; h11 counts only what is incomplete
    cookies = b";".join(value for name, value in request.headers if name == b"cookie")
    if len(cookies) > MAX_COOKIES or b"\\" in cookies:
        return "its cookies"  # ours need no escapes; http.cookies takes quadratic time for them
    return None


class Connection(H11Protocol):
    """A connection of ``peer``. ``malformed`` is called when it sends what is no request."""

    conn: _StrictParser

    def __init__(
        self, config: Config, state: ServerState, peer: str, malformed: Callable[[], None]
    ) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.conn = _StrictParser(h11.SERVER, MAX_HEADER)
        self.peer = peer
        self.is_open = True
        self.connecting: asyncio.Task[None] | None = None  # by TLS
        self._malformed = malformed
        self._since = self._checked = self._unread_since = self.loop.time()  # of the present state
        self._received = 0  # bytes since then
        # It ends once it is closed by its client: it was answered before its body had come, or has
        # sent more requests meanwhile. No browser or proxy does, and each costs us a page.
        self._lingers = False
        self._unread = 0  # bytes of a response that the client had not read at _unread_since

    @property
    def is_complete(self) -> bool:
        """Whether a whole request has come that is being answered, and we wait for no reader."""
        sent = self.conn.their_state is not h11.SEND_BODY
        return self._is_answering and sent and not self._is_waiting_for_reader

    @property
    def _is_waiting_for_reader(self) -> bool:
        return bool(self._unread and self.transport and self.transport.get_write_buffer_size())

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def slowness(self, now: float) -> tuple[bool, float, float]:
        """The order in which connections that are not complete are ended to make room."""
        if self._lingers:
            return False, 0, self._since
        if self._is_waiting_for_reader:
            age = max(now - self._unread_since, 1e-3)
            read = self._unread - self.transport.get_write_buffer_size()
            return age < GRACE_S, read / age, self._unread_since
        age = max(now - self._since, 1e-3)
        return age < GRACE_S, self._received / age, self._since

    def is_late(self, now: float) -> bool:
        """Whether the client is too slow to send or to read; to be asked again and again."""
        passed, self._checked = now - self._checked, now
        if self.transport is None:
            return False  # the TLS handshake has a limit of its own
        if self.transport.get_write_buffer_size():
            return self._is_unread(now)
        self._unread = 0
        if self.flow.read_paused:
            self._since += passed  # it is we who do not read
        waited = now - self._since
        if self._lingers:
            return waited > LINGER_S
        if self.conn.their_state is h11.SEND_BODY:
            return self._received < (waited - BODY_S) * MIN_RATE
        return waited > HEAD_S and not self._is_answering

    def _is_unread(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if not self._unread or size > self._unread:  # more was written
            self._unread, self._unread_since = size, now
        if now - self._unread_since < UNREAD_S:
            return False
        read, self._unread, self._unread_since = self._unread - size, size, now
        return read < UNREAD_S * MIN_RATE

    def end(self) -> None:
        """Ends it at once, whatever has not been sent."""
        self.is_open = False
        if self.transport is not None:
            self.transport.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return  # closing at once would reset the connection, and the response might be lost
        before = (self.cycle, self.conn.their_state)
        super().data_received(data)
        if (self.cycle, self.conn.their_state) != before:
            self._begin()  # perhaps a body, of which a part may have come with its head
        self._received += len(data)

    def on_response_complete(self) -> None:
        self._begin()
        pipelined, _ = self.conn.trailing_data
        whole = self.conn.their_state is not h11.SEND_BODY and not pipelined
        if whole or self.transport.is_closing():
            super().on_response_complete()
            return
        self._lingers = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _begin(self) -> None:
        """Another state begins."""
        self._since, self._received = self.loop.time(), 0

    def send_400_response(self, msg: str) -> None:
        self._malformed()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the application still says is not sent
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(self.conn.refusal)
        else:
            self.transport.abort()

    def _refuse(self, status: int) -> None:
        reason = HTTPStatus(status).phrase.encode()
        headers = [(b"Content-Length", b"0"), (b"Connection", b"close")]
        for event in (h11.Response(status_code=status, headers=headers, reason=reason), _END):
            self.transport.write(self.conn.send(event))
        self.transport.close()
