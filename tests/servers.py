"""The servers that a distributed site needs, each on a free loopback port with its own folder."""

import os
import shutil
import signal
import subprocess
import threading
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

import psycopg

from tests.databases import migrate
from tests.peers import Peer, free_port

# Commits and files that a crash may lose: only tests of crashes would notice.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Postgres(Peer):
    """A PostgreSQL cluster of its own, with a new database for each test.

    ``durable`` as in production, for tests that stop it at once; the others run faster without.
    """

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self.port = free_port()
        self._made, self._lock = 0, threading.Lock()
        self._strategy = ""
        self._programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        if not durable and int(self._programs.parent.name) >= 15:
            self._strategy = " STRATEGY FILE_COPY"  # a third faster than through the log
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
            *(() if durable else ("--no-sync",)),
        ]
        subprocess.run([*_as_postgres(), *initialise], check=True, capture_output=True, cwd="/")
        settings = (
            f"unix_socket_directories={self._place}",
            "listen_addresses=127.0.0.1",
            "max_connections=200",
            *(() if durable else NOT_DURABLE),
        )
        command = [str(self._programs / "postgres"), "-D", str(cluster), "-p", str(self.port)]
        options = [word for setting in settings for word in ("-c", setting)]
        super().__init__(
            [*_as_postgres(), *command, *options], self._answers, folder / "postgres.log"
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://lumbar@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        return self._created("")

    def migrated_database(self) -> str:
        """The URL of a new database at the newest schema, copied from a template."""
        with self._lock:
            template = self._template
        return self._created(f" TEMPLATE {template}{self._strategy}")

    def _created(self, options: str) -> str:
        with self._lock:
            self._made += 1
            name = f"test_{self._made}"
        self._execute(f"CREATE DATABASE {name}{options}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self._execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    @cached_property
    def _template(self) -> str:
        """Migrated once; nobody stays connected to it, or it could not be copied."""
        self._execute("CREATE DATABASE migrated")
        migrate(self.url("migrated"))
        return "migrated"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        shutil.rmtree(self._place, ignore_errors=True)

    def restart_at_once(self) -> None:
        """An immediate shutdown, and a start that recovers from the log."""
        self.stop_at_once()
        self.__enter__()

    def stop_at_once(self) -> None:
        """An immediate shutdown: it recovers from its log at the next start (``__enter__``)."""
        os.kill(int((self._cluster / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
        assert self._child is not None
        self._child.wait(60)

    def _execute(self, statement: str) -> None:
        url = self.url().replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


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
