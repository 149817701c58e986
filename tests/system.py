"""`lumbar up` as a real process tree, with its command line beside it."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import select

from db import schema, studies
from db.database import Database, DatabaseUnavailable
from db.models import Study
from db.read_models import study_queries
from db.read_models.study_queries import DeliveryRow
from db.schema import SchemaOutdated
from lumbar.store.files import Store
from tests import command_line
from tests.peers import free_port

SERVICES = ("up", "scp", "register", "sweep", "deliver", "web", "worker", "demo")
QUICK = {
    "LUMBAR_QUIET_S": "0.5",
    "LUMBAR_SWEEP_EVERY_S": "0.2",
    "LUMBAR_LEASE_S": "2",
    "LUMBAR_RETRY_BASE_S": "0.2",
    "LUMBAR_DELIVERY_TIMEOUT_S": "10",
}


class System:
    """The embedded or distributed system in a folder; it may be killed and started again.

    With ``stubbed`` (the default) its networks are a stub, so that a test measures the hand-over
    and not the reading.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], stubbed: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._stubbed = stubbed
        self._program = [sys.executable, "-m", "tests.stub_program" if stubbed else "commands"]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("LUMBAR_")
        }
        self._environment = {
            **inherited,
            **QUICK,
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "LUMBAR_HOME": str(folder / "home"),
            "LUMBAR_PORT": str(self.port),
            "LUMBAR_WEB": "false",
            **settings,
        }
        self.echo_options: list[str] = []  # of DCMTK's echoscu, for a receiver that speaks TLS
        self._running: list[subprocess.Popen[bytes]] = []

    def set(self, **settings: str) -> None:
        """Changes settings for the next start and command."""
        self._environment |= {f"LUMBAR_{name.upper()}": value for name, value in settings.items()}

    def hold(self, study: str) -> None:
        """Lets the (stubbed) analysis of a study hang, until it is let go."""
        (self.folder / "held").mkdir(exist_ok=True)
        (self.folder / "held" / study).touch()

    def let_go(self, study: str) -> None:
        (self.folder / "held" / study).unlink()

    def start(self, *commands: str) -> list[subprocess.Popen[bytes]]:
        """Starts `lumbar up`, or the named services, each in a session of its own.

        Returns once a C-ECHO is answered and, of `lumbar up`, the schema is upgraded.
        """
        started = self.start_receiver(*commands)
        if not commands:
            wait_until(self._upgraded, 180, lambda: f"the schema was not upgraded:\n{self.tail()}")
        return started

    def start_receiver(self, *commands: str) -> list[subprocess.Popen[bytes]]:
        """As ``start``, for a database that is away: returns once a C-ECHO is answered."""
        started = self._start(commands or ("up",))
        wait_until(self.answers, 180, lambda: f"the receiver did not answer:\n{self.tail()}")
        return started

    def _upgraded(self) -> bool:
        with closing_database(self.database_url) as database:
            try:
                schema.check(database)
            except (SchemaOutdated, DatabaseUnavailable):
                return False
        return True

    def _start(self, commands: Sequence[str]) -> list[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            started = [
                subprocess.Popen(
                    [*self._program, command],
                    env=self._environment,
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for command in commands
            ]
        self._running += started
        return started

    def kill(self) -> None:
        """kill -9, every process at once; on return all are dead."""
        for process in self._running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._running:
            process.wait()
            wait_until(
                lambda group=process.pid: not _alive(group), 10, lambda: "a killed process lives"
            )
        self._running.clear()

    def replace(self, part: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """kill -9 of a part, as ``start`` returned it; starts it anew and returns the new one."""
        os.killpg(part.pid, signal.SIGKILL)
        part.wait()
        self._running.remove(part)
        (new,) = self._start([str(part.args[-1])])  # type: ignore[index]
        return new

    def parts(self) -> dict[str, int]:
        """The process ids of the parts that `lumbar up` runs, by name: scp, sweep, worker."""
        (up,) = self._running
        children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
        parts = {}
        for child in children:
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end while we look
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                if len(words) > 3:
                    parts[words[3]] = int(child)
        return parts

    def terminate(self, within_s: float) -> int:
        """Asks `lumbar up` to stop and returns its exit status."""
        (up,) = self._running
        up.terminate()
        return up.wait(within_s)

    @property
    def home(self) -> Path:
        return Path(self._environment["LUMBAR_HOME"])

    @property
    def database_url(self) -> str:
        return self._environment.get(
            "LUMBAR_DATABASE_URL", f"sqlite:///{self.home / 'lumbar.sqlite'}"
        )

    @property
    def log(self) -> Path:
        return self.folder / "system.log"

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def lumbar(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The command line with the system's settings; in this process where it runs no service."""
        if arguments[0] not in SERVICES:
            return command_line.run(
                arguments, self._environment, self.folder, stdin=stdin, stubbed=self._stubbed
            )
        return self.lumbar_process(*arguments)

    def lumbar_process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line with the system's settings as a process of its own."""
        return subprocess.run(
            [*self._program, *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def complete(self, study: str) -> None:
        """`lumbar complete`, once all images received so far are registered."""
        store = Store(self.home / "store")
        wait_until(lambda: study in self.states() and study not in store.arriving(), 30, self.tail)
        completed = self.lumbar("complete", study)
        assert completed.returncode == 0, completed.stderr

    def findings(self) -> list[dict[str, str]]:
        """The rows of ``lumbar findings --format csv``."""
        done = self.lumbar("findings", "--format", "csv")
        assert done.returncode == 0, done.stderr
        return list(csv.DictReader(io.StringIO(done.stdout)))

    def states(self) -> dict[str, str]:
        """Study Instance UID → state, as the database has it."""
        with closing_database(self.database_url) as database, database.reading() as session:
            return {
                study.study_instance_uid: str(study.state)
                for study in session.scalars(select(Study))
            }

    def deliveries(self, study: str) -> list[DeliveryRow]:
        """What became of a study's reports."""
        with closing_database(self.database_url) as database, database.reading() as session:
            return study_queries.deliveries(session, studies.find(session, study).id)

    def wait_for_states(self, wanted: Mapping[str, str], timeout_s: float = 60) -> None:
        """Until the worklist shows just these studies in these states."""
        wait_until(
            lambda: self.states() == wanted, timeout_s, lambda: f"{self.states()}\n{self.tail()}"
        )

    def dcmsend(self, *paths: Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """DCMTK's sender, as a scanner; +sd reads folders, +r sub-folders."""
        return subprocess.run(
            [
                "dcmsend",
                "-v",
                "-aec",
                "LUMBAR",
                "-aet",
                "TESTMR",
                "+sd",
                "+r",
                "127.0.0.1",
                str(self.port),
                *map(str, paths),
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"TCP_NODELAY": "1"},
            timeout=timeout_s,
        )

    def answers(self) -> bool:
        """Whether the receiver answers a C-ECHO; none is sent before it listens."""
        if not _listens(self.port):
            return False
        echo = ["echoscu", "-aec", "LUMBAR", *self.echo_options, "127.0.0.1", str(self.port)]
        return subprocess.run(echo, capture_output=True).returncode == 0


def _listens(port: int) -> bool:
    """Whether a process listens on a TCP port (IPv4), without connecting to it: proc(5)."""
    listening = (f":{port:04X}", "0A")
    sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any((line.split()[1][-5:], line.split()[3]) == listening for line in sockets)


def _alive(group: int) -> bool:
    """Whether a process group has a process that is not a mere zombie."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, of_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                return True
    return False


@contextmanager
def closing_database(url: str) -> Iterator[Database]:
    database = Database.connect(url)
    try:
        yield database
    finally:
        database.close()


def wait_until(
    condition: Callable[[], bool], timeout_s: float, otherwise: Callable[[], str]
) -> None:
    """Polls a condition, less and less often; fails with ``otherwise`` when time is up."""
    ends, pause_s = time.monotonic() + timeout_s, 0.02
    while not condition():
        assert time.monotonic() < ends, otherwise()
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, 0.3)
