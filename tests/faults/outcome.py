"""What a scenario returns, and the environment it runs in."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.peers import Orthanc
from tests.servers import Postgres, Redis
from tests.system import System, wait_until

# Studies of a few slices are complete after two quiet seconds, and "read" from their headers.
SMALL_STUDY_SETTINGS = {
    "TESTS_READING": "headers",
    "LUMBAR_QUIET_S": "1",
    "LUMBAR_QUIET_INCOMPLETE_S": "2",
}


@dataclass
class Outcome:
    """One row of the table.

    ``lost``, ``duplicated`` and ``partial`` name the violations: all must be empty.
    """

    fault: str
    rounds: int
    acknowledged: int = 0
    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    recovery_s: float | None = None  # of the slowest recovery
    recovery_bound_s: float | None = None
    note: str = ""
    not_run: bool = False

    @property
    def violations(self) -> list[str]:
        """In words; empty if there are none."""
        violations = [
            f"{kind}: {', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}"
            for kind, names in (
                ("lost", self.lost),
                ("duplicated", self.duplicated),
                ("partial", self.partial),
            )
            if names
        ]
        if not self.not_run and not self.acknowledged:
            violations.append("nothing was acknowledged, so nothing was tested")
        if (
            self.recovery_s is not None
            and self.recovery_bound_s
            and self.recovery_s > self.recovery_bound_s
        ):
            violations.append(
                f"recovery took {self.recovery_s:.1f} s, more than {self.recovery_bound_s:g} s"
            )
        return violations


class Environment:
    """The servers that scenarios share, each started on first use.

    Each scenario gets its own folder and random numbers.
    """

    def __init__(
        self, folder: Path, seed: int, progress: Callable[[str], None] = lambda text: None
    ) -> None:
        self._folder, self._seed, self.progress = folder, seed, progress
        self._servers = ExitStack()

    def close(self) -> None:
        self._servers.close()

    @cached_property
    def postgres(self) -> Postgres:
        return self._servers.enter_context(Postgres(self._folder / "postgres"))

    @cached_property
    def redis(self) -> Redis:
        return self._servers.enter_context(Redis(self._folder / "redis"))

    @cached_property
    def orthanc(self) -> Orthanc:
        return self._servers.enter_context(Orthanc(self._folder / "orthanc"))

    def start_workers(self, system: System, count: int) -> list[subprocess.Popen[bytes]]:
        """Returns once all wait for work.

        A worker that finds no database at its start logs that and ends.
        """
        workers = system.start(*["worker"] * count)
        wait_until(lambda: self.redis.waiting() >= count, 60, system.tail)
        return workers

    def folder(self, fault: str) -> Path:
        folder = self._folder / fault
        folder.mkdir(parents=True)
        return folder

    def rng(self, fault: str) -> random.Random:
        """Random numbers that depend on the seed and the fault."""
        return random.Random(f"{fault} {self._seed}")

    @contextmanager
    def embedded(self, fault: str, **settings: str) -> Iterator[System]:
        with killed_at_end(System(self.folder(fault), SMALL_STUDY_SETTINGS | settings)) as system:
            yield system

    @contextmanager
    def distributed(self, fault: str, **settings: str) -> Iterator[System]:
        """A system with a new database and an empty broker; its parts are not started."""
        self.redis.flush()
        servers = {
            "LUMBAR_DATABASE_URL": self.postgres.new_database(),
            "LUMBAR_BROKER_URL": self.redis.url,
        }
        system = System(self.folder(fault), SMALL_STUDY_SETTINGS | servers | settings)
        upgraded = system.lumbar("db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        with killed_at_end(system):
            yield system


@contextmanager
def killed_at_end(system: System) -> Iterator[System]:
    try:
        yield system
    finally:
        system.kill()


@dataclass
class Stopwatch:
    """Measures the seconds since it was created."""

    started: float = field(default_factory=time.monotonic)

    @property
    def s(self) -> float:
        return time.monotonic() - self.started
