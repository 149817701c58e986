"""The attacked system: the running product with real networks, its users and its scanner."""

import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from typing import Self

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import MRImageStorage

from tests.attack.browser import Browser
from tests.peers import free_port
from tests.pynetdicom_senders import keep_responses
from tests.servers import Postgres, Redis
from tests.system import System, wait_until

PASSWORD = "a horse of the battery"
USERS = {"anna": "reader", "vera": "viewer", "otto": "operator", "ada": "admin"}
RATE = 6.0  # images a second
PAGESIZE = getpagesize()


class Target:
    """`lumbar up` in a new folder, on loopback; ``database``: ``postgresql`` or ``sqlite``."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder, self._database = folder, database
        self._servers = ExitStack()
        self.web_port = free_port()

    def __enter__(self) -> Self:
        settings = {
            "LUMBAR_WEB": "true",
            "LUMBAR_WEB_PORT": str(self.web_port),
            "LUMBAR_QUIET_S": "5",
            "LUMBAR_SWEEP_EVERY_S": "5",
        }
        if self._database == "postgresql":
            postgres = self._servers.enter_context(Postgres(self._folder / "postgres"))
            redis = self._servers.enter_context(Redis(self._folder / "redis"))
            settings["LUMBAR_DATABASE_URL"] = postgres.new_database()
            settings["LUMBAR_BROKER_URL"] = redis.url
        self.system = System(self._folder / "system", settings, stubbed=False)
        self._servers.callback(self.system.kill)
        self.system.start()
        for name, role in USERS.items():
            added = self.system.lumbar("users", "add", name, "--role", role, stdin=PASSWORD + "\n")
            assert added.returncode == 0, added.stderr
        wait_until(self._ready, 60, self.system.tail)
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def signed_in(self, name: str, address: str = "127.0.0.1") -> Browser:
        browser = Browser(self.web_port, address)
        assert browser.sign_in(name, PASSWORD) == 303, f"{name} cannot sign in"
        return browser

    def parts(self) -> dict[str, int]:
        """The process ids of the system's parts, by name."""
        return self.system.parts()

    def _ready(self) -> bool:
        with suppress(OSError):
            return Browser(self.web_port).get("/readyz").status == 200
        return False


@dataclass(frozen=True)
class Stored:
    """An image as its scanner saw it: DIMSE status (None: no response) and the time, seconds."""

    at: float
    status: int | None
    took_s: float


class Scanner(threading.Thread):
    """Sends phantoms, study after study, an image every ``1 / RATE`` s; waits for each response."""

    def __init__(self, port: int, phantom: Path) -> None:
        super().__init__(daemon=True)
        self._port, self._stopped = port, threading.Event()
        self._slices = [dcmread(file) for file in sorted(phantom.rglob("*.dcm"))]
        self.stored: list[Stored] = []

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            study, series = generate_uid(), {}
            association = self._associate()
            for ds in self._slices:
                due += 1 / RATE
                if self._stopped.wait(max(0.0, due - time.monotonic())):
                    break
                copied = _renamed(ds, study, series)
                if not association.is_established:
                    association = self._associate()
                self._store(association, copied)
            association.release()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _store(self, association: Association, ds: Dataset) -> None:
        began = time.monotonic()
        status = None
        if association.is_established:
            with suppress(RuntimeError):  # it was aborted meanwhile
                status = association.send_c_store(ds).get("Status")
        self.stored.append(Stored(began, status, time.monotonic() - began))

    def _associate(self) -> Association:
        ae = AE("SCANNER")
        ae.add_requested_context(MRImageStorage)
        association = ae.associate("127.0.0.1", self._port, ae_title="LUMBAR")
        keep_responses(association)
        return association


def _renamed(ds: Dataset, study: str, series: dict[str, str]) -> Dataset:
    """The slice as part of another study, with its pixels shared."""
    copied = Dataset(dict(ds.items()))
    copied.file_meta = ds.file_meta
    copied.StudyInstanceUID = study
    copied.SeriesInstanceUID = series.setdefault(ds.SeriesInstanceUID, generate_uid())
    copied.SOPInstanceUID = generate_uid()
    copied.AccessionNumber = study[-12:]
    return copied


class Reader(threading.Thread):
    """A reader with a browser: worklist, study, list of findings, twice a second."""

    PAUSE_S = 0.5

    def __init__(self, browser: Browser) -> None:
        super().__init__(daemon=True)
        self._browser, self._stopped = browser, threading.Event()
        self.shown: list[Stored] = []

    def run(self) -> None:
        addresses = ["/", "/studies", "/findings"]
        while not self._stopped.wait(self.PAUSE_S):
            for address in addresses:
                began, status = time.monotonic(), None
                with suppress(OSError):
                    status = self._browser.get(address).status
                self.shown.append(Stored(began, status, time.monotonic() - began))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class Memory(threading.Thread):
    """The largest resident memory of each part with its child processes, MiB."""

    PAUSE_S = 0.5

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self._target, self._stopped = target, threading.Event()
        self.peak: dict[str, float] = {}

    def run(self) -> None:
        while not self._stopped.wait(self.PAUSE_S):
            for part, process in self._target.parts().items():
                self.peak[part] = max(self.peak.get(part, 0.0), _memory_mib(process))

    def begin(self) -> None:
        """Forgets what was before."""
        self.peak = {}

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _memory_mib(process: int) -> float:
    """Resident memory of a process and its descendants (proc(5))."""
    total, waiting = 0.0, [process]
    while waiting:
        one = waiting.pop()
        with suppress(OSError):
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
            total += pages * PAGESIZE / 2**20
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return total


def make_phantom(folder: Path) -> Path:
    """A phantom study, made by the command line."""
    program = shutil.which("lumbar", path=str(Path(sys.executable).parent)) or "lumbar"
    subprocess.run(
        [program, "phantom", str(folder), "--studies", "1", "--seed", "3"],
        check=True,
        capture_output=True,
    )
    return folder
