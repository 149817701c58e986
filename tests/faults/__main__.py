"""Every fault in full, and one table: ``make faults`` or ``python -m tests.faults --help``."""

import argparse
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.outcome import Clock, Ground, Outcome
from tests.faults.scenarios import SCENARIOS


def main() -> int:
    faults = "\n".join(
        f"  {name:<17}{one.FULL:>4} rounds  {one.__doc__}" for name, one in SCENARIOS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Injects faults into the real system and says what was lost, duplicated or shown too early.",
        epilog=f"faults, and how many rounds make the full figures:\n{faults}\n\nExits 1 if anything is violated.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=int, help="rounds of each fault; without it the full figures"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed, the same moments (default 1)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="FAULT"
    )
    asked = parser.parse_args()
    if asked.rounds is not None and asked.rounds < 1:
        parser.error("--rounds must be at least 1")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # all that was started is stopped
    folder = Path(tempfile.mkdtemp(prefix="lumbar-faults-"))
    console, clock = Console(stderr=True, highlight=False), Clock()
    ground = Ground(folder, asked.seed, lambda text: console.print(f"{clock.s:6.0f} s  {text}"))
    outcomes = []
    try:
        for name in asked.only:
            outcomes.append(_run(ground, name, asked.rounds or SCENARIOS[name].FULL))
    finally:
        ground.close()
    Console(width=160 if not sys.stdout.isatty() else None).print(
        table_of(outcomes, f"seed {asked.seed}, {clock.s / 60:.0f} min")
    )
    violated = [outcome for outcome in outcomes if outcome.violations]
    for outcome in violated:
        console.print(f"{outcome.fault}: {'; '.join(outcome.violations)}")
    if violated:
        console.print(f"The logs and databases are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _run(ground: Ground, name: str, rounds: int) -> Outcome:
    """A scenario that breaks off has shown nothing; the others go on."""
    try:
        return SCENARIOS[name].run(ground, rounds)  # type: ignore[no-any-return]
    except Exception as error:  # noqa: BLE001 - reported in the table, as a violation
        traceback.print_exc()
        return Outcome(name, rounds, note=f"broke off: {type(error).__name__}")


def table_of(outcomes: list[Outcome], title: str) -> Table:
    table = Table(title=title)
    for heading in (
        "fault",
        "rounds",
        "acknowledged",
        "lost",
        "duplicated",
        "partial shown as final",
        "recovery",
    ):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    table.add_column("note")
    for one in outcomes:
        recovery = "" if one.recovery_s is None else f"{one.recovery_s:.1f} s"
        counts = (
            one.rounds,
            one.acknowledged,
            len(one.lost),
            len(one.duplicated),
            len(one.partial),
        )
        cells = [""] * 5 if one.not_run else [f"{count:,}" for count in counts]
        table.add_row(one.fault, *cells, recovery, one.note)
    return table


if __name__ == "__main__":
    sys.exit(main())
