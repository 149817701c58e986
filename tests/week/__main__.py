"""A compressed week, and one table: ``make week`` or ``python -m tests.week --help``."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.week.accounting import Check, account
from tests.week.plan import plan
from tests.week.run import Hospital


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.week",
        description="Runs the whole system through a compressed week of faults with real servers, "
        "and counts in Orthanc what has become of every study.",
        epilog="Example: python -m tests.week --seed 3 --studies 50 --days 5 --day 30\n\n"
        "Exits 1 if a rule is violated. A full disk needs root; it is left out without.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="what happens when (default 1)")
    parser.add_argument("--studies", type=int, default=300, help="how many (default 300)")
    parser.add_argument("--days", type=int, default=7, help="how long the week is (default 7)")
    parser.add_argument("--day", type=float, default=60, help="seconds of a day (default 60)")
    parser.add_argument(
        "--database",
        choices=["postgresql", "sqlite"],
        default="postgresql",
        help="PostgreSQL and Redis, or the embedded system (default postgresql)",
    )
    options = parser.parse_args()
    if options.studies < 1 or options.days < 3 or options.day < 5:
        parser.error("at least 1 study, 3 days, and 5 seconds a day")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops everything that was started
    folder = Path(tempfile.mkdtemp(prefix="lumbar-week-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    console, began = Console(stderr=True, highlight=False), time.monotonic()

    def progress(text: str) -> None:
        day = hospital.day if hospital.began else 0.0
        clock = f"{int(day % 1 * 24):02}:{int(day * 24 % 1 * 60):02}"
        line = f"{time.monotonic() - began:5.0f} s  day {int(day)} {clock}  {text}"
        console.print(line, soft_wrap=True)

    week = plan(options.seed, options.studies, options.days)
    hospital = Hospital(folder, week, options.day, options.database, progress)
    with hospital:
        hospital.run()
        checks = account(hospital)
    minutes = (time.monotonic() - began) / 60
    output = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    output.print(events_of(hospital))
    title = f"seed {options.seed}, {options.studies} studies, {options.database}, {minutes:.0f} min"
    output.print(table_of(checks, title))
    if any(check.violations for check in checks):
        console.print(f"The logs and what was stored are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def events_of(hospital: Hospital) -> Table:
    """What happened, and how large the store was then."""
    table = Table("day", "what happened", "store, MiB", title="the week")
    happened = hospital.happened
    for day, what in happened.events:
        size = next((size for at, size in reversed(happened.store_mib) if at <= day), 0.0)
        table.add_row(f"{day:.2f}", what, f"{size:.1f}")
    largest = max((size for _, size in happened.store_mib), default=0.0)
    table.add_row("", f"{happened.refused} associations were repeated", f"at most {largest:.1f}")
    return table


def table_of(checks: list[Check], title: str) -> Table:
    table = Table("rule", "counted", "violations", "which", title=title)
    for check in checks:
        first = "; ".join(check.violations[:3]) + (" …" if len(check.violations) > 3 else "")
        table.add_row(check.rule, f"{check.counted:,}", str(len(check.violations)), first)
    return table


if __name__ == "__main__":
    sys.exit(main())
