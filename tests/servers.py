"""The servers that a distributed site needs, started on free loopback ports in a folder of their own."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

from tests.peers import Peer, free_port


class Postgres(Peer):
    """A PostgreSQL cluster of its own; ``new_database`` gives each test an empty one."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._made = 0
        self._programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        folder.mkdir(parents=True, exist_ok=True)
        # pytest's own folders are root's alone, and made so again whenever another pytest starts
        self._place = Path(mkdtemp(prefix="lumbar-postgres-"))
        self._cluster = cluster = self._place / "cluster"
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self._place, "postgres")
        initialise = [
            str(self._programs / "initdb"),
            "-D",
            str(cluster),
            "-A",
            "trust",
            "-U",
            "lumbar",
            "-E",
            "UTF8",
        ]
        subprocess.run([*_as_postgres(), *initialise], check=True, capture_output=True, cwd="/")
        settings = (
            f"unix_socket_directories={self._place}",
            "listen_addresses=127.0.0.1",
            "max_connections=200",
        )
        command = [str(self._programs / "postgres"), "-D", str(cluster), "-p", str(self.port)]
        options = [word for setting in settings for word in ("-c", setting)]
        super().__init__(
            [*_as_postgres(), *command, *options], self._answers, folder / "postgres.log"
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://lumbar@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._made += 1
        name = f"test_{self._made}"
        self._psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        shutil.rmtree(self._place, ignore_errors=True)

    def restart_at_once(self) -> None:
        """Stopped in the middle of everything, and started again."""
        self.stop_at_once()
        self.__enter__()

    def stop_at_once(self) -> None:
        """Stopped in the middle of everything: it recovers from its log at the next start (``__enter__``)."""
        os.kill(int((self._cluster / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
        assert self._child is not None
        self._child.wait(60)

    def _psql(self, statement: str) -> subprocess.CompletedProcess[bytes]:
        command = [
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "lumbar",
            "-d",
            "postgres",
            "-c",
            statement,
        ]
        return subprocess.run(command, capture_output=True)

    def _answers(self) -> bool:
        return self._psql("SELECT 1").returncode == 0


class Redis(Peer):
    """A Redis server as a broker, keeping nothing."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        super().__init__(command, self._answers, folder / "redis.log")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """FLUSHALL: every message is gone."""
        subprocess.run(
            ["redis-cli", "-p", str(self.port), "flushall"], check=True, capture_output=True
        )

    def waiting(self) -> int:
        """How many workers wait for a message."""
        clients = subprocess.run(
            ["redis-cli", "-p", str(self.port), "client", "list"], capture_output=True, text=True
        )
        return clients.stdout.count("cmd=brpop ")

    def _answers(self) -> bool:
        answer = subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True)
        return answer.stdout.strip() == b"PONG"


def _as_postgres() -> list[str]:
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
