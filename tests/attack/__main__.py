"""Floods of the running product, and one table: ``make attack``, `python -m tests.attack`."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.attack.floods import FLOODS
from tests.attack.target import Memory, Reader, Scanner, Stored, Target, make_phantom
from tests.system import wait_until

MAX_DELAY_S = 2.0  # of a response to an image
MAX_PAGE_S = 1.0  # 95th percentile, for a reader who is signed in
MAX_GROWTH = 1.5  # memory of a part beside what it needed without a flood
MAX_GUESSES = 10  # passwords of one name tried from one address
CALM = "nothing"


@dataclass
class Row:
    """What was measured during a flood."""

    flood: str
    images: list[Stored]
    pages: list[Stored]
    memory: dict[str, float]  # MiB, by part
    seen: dict[str, int]

    @property
    def refused(self) -> int:
        return sum(image.status != 0 for image in self.images)

    @property
    def slowest_s(self) -> float:
        return max((image.took_s for image in self.images), default=0.0)

    @property
    def p95_s(self) -> float:
        """95th percentile of the pages' response times."""
        times = sorted(page.took_s for page in self.pages)
        return times[int(0.95 * (len(times) - 1))] if times else float("inf")

    @property
    def failed_pages(self) -> int:
        return sum(page.status != 200 for page in self.pages)

    def growth(self, calm: "Row") -> dict[str, float]:
        """Memory of each part beside what it needed without a flood."""
        return {
            part: mib / calm.memory[part]
            for part, mib in self.memory.items()
            if part in calm.memory
        }

    def violations(self, calm: "Row") -> list[str]:
        found = []
        if self.refused or not self.images:
            found.append(f"{self.refused} of {len(self.images)} images refused")
        if self.slowest_s > MAX_DELAY_S:
            found.append(f"an image waited {self.slowest_s:.1f} s")
        if self.p95_s > MAX_PAGE_S:
            found.append(f"pages took {self.p95_s:.1f} s (95th percentile)")
        if self.failed_pages:
            found.append(f"{self.failed_pages} of {len(self.pages)} pages failed")
        found += [
            f"memory of {part} × {ratio:.2f}"
            for part, ratio in self.growth(calm).items()
            if ratio > MAX_GROWTH
        ]
        found += [f"{part} ended" for part in calm.memory if part not in self.memory]
        if self.seen.get("tried", 0) > MAX_GUESSES:
            found.append(f"{self.seen['tried']} passwords were tried")
        if self.seen.get("the owner is let in") == 0:
            found.append("the owner of the name was locked out")
        return found


def main() -> int:
    names = "\n".join(f"  {name:<25}{flood.__doc__}" for name, flood in FLOODS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack",
        description="Attacks the running system on loopback while 6 images a second arrive and a "
        "reader looks at pages.",
        epilog=f"floods:\n{names}\n\nExample: python -m tests.attack --database sqlite --seconds 20"
        "\n\nExits 1 if a rule is violated.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is random (default 1)")
    parser.add_argument("--seconds", type=float, default=15, help="of each flood (default 15)")
    parser.add_argument(
        "--database", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"]
    )
    parser.add_argument("--only", nargs="+", choices=FLOODS, default=list(FLOODS), metavar="FLOOD")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops everything that was started
    folder = Path(tempfile.mkdtemp(prefix="lumbar-attack-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    phantom = make_phantom(folder / "phantom")
    output = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    violated = False
    for database in options.database:
        rows = attacked(folder / database, database, phantom, options)
        calm = rows[0]
        output.print(table_of(rows, database))
        for row in rows:
            for violation in row.violations(calm):
                violated = True
                output.print(f"{database}, {row.flood}: {violation}")
    if violated:
        output.print(f"The logs are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def attacked(folder: Path, database: str, phantom: Path, options: argparse.Namespace) -> list[Row]:
    """One row for the time without a flood, and one for each flood."""
    console = Console(stderr=True, highlight=False)
    rows = []
    with Target(folder, database) as target:
        scanner = Scanner(target.system.port, phantom)
        reader = Reader(target.signed_in("otto"))
        memory = Memory(target)
        for thread in (scanner, reader, memory):
            thread.start()
        wait_until(lambda: "analysed" in target.system.states().values(), 120, target.system.tail)
        for name in (CALM, *options.only):
            console.print(f"{database}: {name}")
            images, pages = len(scanner.stored), len(reader.shown)
            memory.begin()
            seen = _flood(name, target, options)
            rows.append(
                Row(name, scanner.stored[images:], reader.shown[pages:], dict(memory.peak), seen)
            )
        for thread in (scanner, reader, memory):
            thread.stop()
    return rows


def _flood(name: str, target: Target, options: argparse.Namespace) -> dict[str, int]:
    """Runs a flood in a process of its own; returns what it saw."""
    if name == CALM:
        time.sleep(2 * options.seconds)
        return {}
    numbers = (target.web_port, target.system.port, options.seconds, options.seed)
    command = [sys.executable, "-m", "tests.attack.floods", name, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {(done.stderr.strip().splitlines() or ["failed"])[-1]: 1}
    seen: dict[str, int] = json.loads(done.stdout)
    return seen


def table_of(rows: list[Row], database: str) -> Table:
    table = Table(title=f"6 images a second, and a reader, during floods ({database})")
    for heading in (
        "flood",
        "images",
        "refused",
        "slowest, s",
        "pages",
        "failed",
        "p95, s",
        "memory",
        "what the attacker saw",
    ):
        table.add_column(heading)
    for row in rows:
        growth = row.growth(rows[0])
        most = max(growth, key=growth.__getitem__, default="")
        table.add_row(
            row.flood,
            str(len(row.images)),
            str(row.refused),
            f"{row.slowest_s:.2f}",
            str(len(row.pages)),
            str(row.failed_pages),
            f"{row.p95_s:.2f}",
            f"{most} × {growth[most]:.2f}" if most else "",
            ", ".join(f"{what}: {count}" for what, count in sorted(row.seen.items())),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
