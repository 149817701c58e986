"""Real peers to send to, started by the test that needs them, on free loopback ports."""

import fcntl
import json
import os
import random
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import Any, Self

from lumbar.peers import DicomwebDestination, DimseDestination

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_DEADLINE_S = 30.0
_GIVEN: set[int] = set()
_LOCK = threading.Lock()


def free_port() -> int:
    """A TCP port on which nothing listens, below the range of outgoing connections.

    No port is given twice while the process lives, to it or to any other: it holds a record lock on
    the byte of that number in one file, which the kernel releases when the process ends.
    """
    while True:
        port = random.randint(15_000, 32_000)
        with _LOCK:
            if port not in _GIVEN and _is_free(port) and _is_ours(port):
                _GIVEN.add(port)
                return port


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_ours(port: int) -> bool:
    """Whether this process could reserve the port; a child process does not inherit the lock."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    """The file of locks, opened once: closing any descriptor of it would release them all."""
    file = Path(gettempdir()) / f"lumbar-test-ports-{os.geteuid()}"
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Peer:
    """A child process that runs as long as the ``with`` block and is ready once it is entered."""

    def __init__(self, command: list[str], ready: Callable[[], bool], log: Path) -> None:
        self._command = command
        self._ready = ready
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # without TCP_NODELAY, DCMTK and Orthanc wait 40 ms before each answer
        environment = os.environ | {"TCP_NODELAY": "1"}
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._ready():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(
                    f"{self._command[0]} did not start:\n{self._log.read_text()[-2000:]}"
                )
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """kill -9; ``__enter__`` starts it again, on the same port and folder."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Orthanc(Peer):
    """Orthanc with DICOMweb, its database in ``folder``; it checks the called AE title."""

    ae_title = "ORTHANC"

    def __init__(self, folder: Path, **settings: object) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "orthanc.json"
        configuration.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "DicomAet": self.ae_title,
                    "DicomPort": self.dicom_port,
                    "DicomCheckCalledAet": True,
                    "DicomAlwaysAllowFind": True,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "Plugins": [str(DICOMWEB_PLUGIN)],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                    **settings,
                }
            )
        )
        super().__init__(["Orthanc", str(configuration)], self._answers, folder / "orthanc.log")

    @property
    def dimse(self) -> DimseDestination:
        return DimseDestination("pacs", "127.0.0.1", self.dicom_port, self.ae_title)

    @property
    def dicomweb(self) -> DicomwebDestination:
        return DicomwebDestination("archive", f"http://127.0.0.1:{self.http_port}/dicom-web")

    @property
    def destinations(self) -> tuple[DimseDestination, DicomwebDestination]:
        """Both ways in."""
        return self.dimse, self.dicomweb

    def rest(self, path: str) -> Any:
        """What its REST API answers, as JSON."""
        return json.loads(self.download(path))

    def download(self, path: str) -> bytes:
        """What its REST API answers, as bytes: ``/instances/<its id>/file``."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.http_port}{path}", timeout=10
        ) as answer:
            return bytes(answer.read())

    def post(self, path: str, content: bytes, method: str = "POST") -> Any:
        """What its REST API answers to this content, as JSON; None if it answers nothing."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", data=content, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            received = answer.read()
        return json.loads(received) if received.strip() else None

    def delete(self, path: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", method="DELETE"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def _answers(self) -> bool:
        try:
            return bool(self.rest("/system")["Version"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


class Storescp(Peer):
    """DCMTK's storescp: accepts every transfer syntax, writes files unchanged into ``folder``."""

    ae_title = "STORESCP"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "received"
        self.folder.mkdir(parents=True)
        self.dicom_port = free_port()
        command = [
            "storescp",
            "-aet",
            self.ae_title,
            "-od",
            str(self.folder),
            "+xa",
            "+B",
            str(self.dicom_port),
        ]
        super().__init__(command, self._answers, folder / "storescp.log")

    @property
    def dimse(self) -> DimseDestination:
        return DimseDestination("dcmtk", "127.0.0.1", self.dicom_port, self.ae_title)

    def _answers(self) -> bool:
        return (
            subprocess.run(
                ["echoscu", "127.0.0.1", str(self.dicom_port)], capture_output=True
            ).returncode
            == 0
        )
