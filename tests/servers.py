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
from typing import Any

import psycopg

from tests.databases import migrate
from tests.peers import Peer, free_port

# Commits and files that a crash may lose: only tests of crashes would notice.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Postgres(Peer):
    """A PostgreSQL cluster of its own, with a new database for each test.

    ``durable`` as in production, for tests that stop it at once; the others run faster without.
    With ``standby_of`` it is a streaming standby of another one.
    """

    def __init__(
        self, folder: Path, durable: bool = True, standby_of: "Postgres | None" = None
    ) -> None:
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
        copy = [str(self._programs / "pg_basebackup"), "-D", str(cluster), "-R", "-c", "fast"]
        if standby_of:
            initialise = [*copy, "-h", "127.0.0.1", "-p", str(standby_of.port), "-U", "lumbar"]
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


class PgBouncer(Peer):
    """PgBouncer before a PostgreSQL, pooling by transactions as it usually does."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self.port = free_port()
        self._place = Path(mkdtemp(prefix="lumbar-pgbouncer-"))
        settings = self._place / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n"
            "max_client_conn = 500\nunix_socket_dir =\n"
        )
        # "any" makes everybody the user that the database's line names
        settings.write_text(settings.read_text().replace("port=", "user=lumbar port="))
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self._place, "postgres")
            shutil.chown(settings, "postgres")
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            [*_as_postgres(), shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", str(settings)],
            self._answers,
            folder / "pgbouncer.log",
        )

    def url(self, of_postgres: str) -> str:
        """The URL of a database of the PostgreSQL, through this server."""
        return f"postgresql+psycopg://lumbar@127.0.0.1:{self.port}/{of_postgres.rpartition('/')[2]}"

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        shutil.rmtree(self._place, ignore_errors=True)

    def _answers(self) -> bool:
        url = self.url("/postgres").replace("+psycopg", "")
        try:
            with psycopg.connect(url, connect_timeout=10) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class Redis(Peer):
    """A Redis server as a broker, keeping nothing; ``options`` as in its configuration file."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.port = free_port()
        self._password = options.get("requirepass")
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(folder)}
        command = ["redis-server"]
        for name, value in (settings | options).items():
            command += [f"--{name.replace('_', '-')}", value]
        super().__init__(command, self._answers, folder / "redis.log")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> str:
        """What `redis-cli` prints."""
        password = ["--no-auth-warning", "-a", self._password] if self._password else []
        command = ["redis-cli", "-p", str(self.port), *password, *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def flush(self) -> None:
        """FLUSHALL: every message is gone."""
        assert self.command("flushall") == "OK"

    def replicate(self, of: str) -> None:
        """Makes it the replica of a server (``host port``), or of ``NO ONE``."""
        command = ["redis-cli", "-p", str(self.port), "replicaof", *of.split()]
        subprocess.run(command, check=True, capture_output=True)

    def waiting(self) -> int:
        """How many workers wait for a message."""
        return self.command("client", "list").count("cmd=brpop ")

    def _answers(self) -> bool:
        return self.command("ping") == "PONG"


class Sentinel(Peer):
    """A Redis Sentinel that watches a master as ``mymaster`` and fails over in seconds."""

    def __init__(self, folder: Path, master: Redis, password: str, quorum: int = 1) -> None:
        self.port = free_port()
        self._password = password
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {password}\n"
            f"sentinel sentinel-pass {password}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} {quorum}\n"
            f"sentinel auth-pass mymaster {master._password}\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 3000\n"
        )
        super().__init__(["redis-sentinel", str(settings)], self._answers, folder / "sentinel.log")

    def command(self, *words: str) -> str:
        password = ["--no-auth-warning", "-a", self._password]
        command = ["redis-cli", "-p", str(self.port), *password, *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def master_port(self) -> int:
        return int(self.command("sentinel", "get-master-addr-by-name", "mymaster").split()[-1])

    def _answers(self) -> bool:
        """Whether it knows the master and a replica to fail over to."""
        return "slaves=1" in self.command("info", "sentinel")


def _as_postgres() -> list[str]:
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
