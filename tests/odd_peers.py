"""Peers that answer as a test tells them to, by DIMSE (pynetdicom, or byte by byte) and HTTP."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from lumbar.peers import DicomwebDestination, DimseDestination
from tests.hostile.wire import ASSOCIATE_AC, RELEASE_RP, group_0000, item, p_data, pdu

ABORTS = -1  # in place of a status: the peer aborts the association
Script = Callable[["Connection"], None]


@contextmanager
def answering(
    status: int,
    *,
    matches: int | None = None,
    accepts: str = Comprehensive3DSRStorage,
    syntaxes: list[str] | None = None,
) -> Iterator[tuple[DimseDestination, list[Dataset]]]:
    """An SCP that answers every C-STORE with ``status``, and C-FIND with so many ``matches``.

    With None, it offers no C-FIND.
    """
    stored: list[Dataset] = []

    def store(event: Any) -> int:
        stored.append(event.dataset)
        if status == ABORTS:
            event.assoc.abort()
        return status

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for _ in range(matches or 0):
            yield 0xFF00, event.identifier

    entity = AE(ae_title="ODD")
    entity.add_supported_context(accepts, *([syntaxes] if syntaxes else []))
    if matches is not None:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)],
    )
    try:
        yield DimseDestination("odd", "127.0.0.1", server.server_address[1], "ODD"), stored
    finally:
        server.shutdown()


class Connection:
    """A requestor's connection, as its peer sees it."""

    def __init__(self, stream: socket.socket, ended: Event) -> None:
        self.stream = stream
        self.ended = ended

    def read_pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._read(6))
        return kind, self._read(length)

    def read_message(self) -> bytes:
        """All of a message with a data set, or of a command without one; its last PDU."""
        while True:
            kind, content = self.read_pdu()
            assert kind == 4, kind
            control = content[5]
            if control == 2 or (control == 3 and b"\x00\x08\x02\x00\x00\x00\x01\x01" in content):
                return content

    def accept(self, **changes: Any) -> None:
        """Reads the A-ASSOCIATE-RQ, and accepts the contexts."""
        _, request = self.read_pdu()
        self.send(acceptance(request, **changes))

    def send(self, content: bytes) -> None:
        self.stream.sendall(content)

    def drip(self, content: bytes) -> None:
        for byte in content:
            self.send(bytes((byte,)))
            self.ended.wait(0.02)

    def wait(self) -> None:
        """Silence, until the test has ended."""
        self.ended.wait(60)

    def release(self) -> None:
        """Answers the A-RELEASE-RQ."""
        self.read_pdu()
        self.send(pdu(RELEASE_RP, bytes(4)))

    def reset(self) -> None:
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.close()

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            part = self.stream.recv(count - len(content))
            if not part:
                raise ConnectionError
            content += part
        return content


def acceptance(
    request: bytes, *, longest: int = 16_384, user: bytes | None = None, syntax: str | None = None
) -> bytes:
    """The A-ASSOCIATE-AC that accepts every context, each in its first transfer syntax."""
    answers, at = b"", 68
    while at < len(request):
        kind, _, length = struct.unpack_from(">BBH", request, at)
        content = request[at + 4 : at + 4 + length]
        if kind == 0x20:
            proposed = content[4:].rpartition(b"\x40\0")[2][2:].decode()
            chosen = item(0x40, (syntax or proposed).encode())
            answers += item(0x21, bytes((content[0], 0, 0, 0)) + chosen)
        at += 4 + length
    user = item(0x50, item(0x51, struct.pack(">L", longest))) if user is None else user
    return pdu(ASSOCIATE_AC, request[:68] + item(0x10, b"1.2.840.10008.3.1.1.1") + answers + user)


def response(
    field: int = 0x8001, status: int | None = 0, message: int = 1, **more: bytes
) -> dict[int, bytes]:
    """A response's command set."""
    values = {
        0x0100: struct.pack("<H", field),
        0x0120: struct.pack("<H", message),
        0x0800: b"\1\1",
    }
    if status is not None:
        values[0x0900] = struct.pack("<H", status)
    return values | {int(name[1:], 16): value for name, value in more.items()}


def answer(values: dict[int, bytes], context: int = 1) -> bytes:
    return p_data(context, group_0000(values), command=True)


def storing(status: int | None, seen: list[bytes] | None = None, **more: bytes) -> Script:
    """Takes an instance, and answers with that status; ``more`` adds to the response."""

    def script(connection: Connection) -> None:
        connection.accept()
        message = connection.read_message()
        if seen is not None:
            seen.append(message)
        connection.send(answer(response(status=status, **more)))
        connection.release()

    return script


@contextmanager
def scripted(*scripts: Script) -> Iterator[DimseDestination]:
    """A peer that plays one script for each connection, in order, and the last for all others."""
    ended = Event()

    def play(stream: socket.socket, script: Script) -> None:
        with stream, suppress(OSError):
            script(Connection(stream, ended))

    def listen() -> None:
        number = 0
        with suppress(OSError):
            while True:
                stream, _ = listener.accept()
                stream.settimeout(20)
                script = scripts[min(number, len(scripts) - 1)]
                Thread(target=play, args=(stream, script), daemon=True).start()
                number += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=listen, daemon=True).start()
        try:
            yield DimseDestination("odd", "127.0.0.1", listener.getsockname()[1], "ODD")
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


@dataclass
class Http:
    """What a server answers; ``headers`` may state another length than the body's."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Web:
    """An HTTP server that answers each method with the next of its answers, or the last again."""

    def __init__(self, *posts: Http, gets: list[Http] | None = None) -> None:
        self.requests: list[HttpRequest] = []
        self._answers = {"POST": list(posts), "GET": gets or [Http(404)]}

    def posted(self) -> list[HttpRequest]:
        return [request for request in self.requests if request.method == "POST"]

    @contextmanager
    def running(self, **more: Any) -> Iterator[DicomwebDestination]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                web.requests.append(
                    HttpRequest(self.command, self.path, dict(self.headers), content)
                )
                answers = web._answers[self.command]
                chosen = answers.pop(0) if len(answers) > 1 else answers[0]
                headers = {"Content-Length": str(len(chosen.body))} | chosen.headers
                self.send_response(chosen.status)
                for name, value in headers.items():
                    self.send_header(name, value.replace("{port}", str(server.server_port)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(chosen.body)

            def do_GET(self) -> None:
                self.headers["Content-Length"] = "0"
                self.do_POST()

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            url = f"http://127.0.0.1:{server.server_port}/dicom-web"
            try:
                yield DicomwebDestination("web", url, **more)
            finally:
                server.shutdown()
                thread.join()
