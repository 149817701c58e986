"""All faults in full, and one table: ``make faults`` or ``python -m tests.faults --help``."""

import argparse
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.outcome import Environment, Outcome, Stopwatch
from tests.faults.scenarios import SCENARIOS


def main() -> int:
    faults = "\n".join(
        f"  {name:<17}{scenario.FULL_ROUNDS:>4} rounds  {scenario.__doc__}"
        for name, scenario in SCENARIOS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Injects faults into the real system and reports what was lost, duplicated or "
        "shown too early.",
        epilog=f"faults, and the number of rounds of a full run:\n{faults}\n\n"
        "Exits 1 if anything is violated.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=int, help="rounds of each fault (default: those of a full run)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="determines when faults are injected (default 1)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="FAULT"
    )
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops everything that was started
    folder = Path(tempfile.mkdtemp(prefix="lumbar-faults-"))
    console, stopwatch = Console(stderr=True, highlight=False), Stopwatch()
    environment = Environment(
        folder, options.seed, lambda text: console.print(f"{stopwatch.s:6.0f} s  {text}")
    )
    outcomes = []
    try:
        for name in options.only:
            outcomes.append(_run(environment, name, options.rounds or SCENARIOS[name].FULL_ROUNDS))
    finally:
        environment.close()
    Console(width=160 if not sys.stdout.isatty() else None).print(
        table_of(outcomes, f"seed {options.seed}, {stopwatch.s / 60:.0f} min")
    )
    violated = [outcome for outcome in outcomes if outcome.violations]
    for outcome in violated:
        console.print(f"{outcome.fault}: {'; '.join(outcome.violations)}")
    if violated:
        console.print(f"The logs and databases are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _run(environment: Environment, name: str, rounds: int) -> Outcome:
    """Runs a scenario; one that raises is reported in the table, and the others go on."""
    try:
        return SCENARIOS[name].run(environment, rounds)  # type: ignore[no-any-return]
    except Exception as error:  # noqa: BLE001 - reported as a violation
        traceback.print_exc()
        return Outcome(name, rounds, note=f"failed: {type(error).__name__}")


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
    for outcome in outcomes:
        recovery = "" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f} s"
        counts = (
            outcome.rounds,
            outcome.acknowledged,
            len(outcome.lost),
            len(outcome.duplicated),
            len(outcome.partial),
        )
        cells = [""] * 5 if outcome.not_run else [f"{count:,}" for count in counts]
        table.add_row(outcome.fault, *cells, recovery, outcome.note)
    return table


if __name__ == "__main__":
    sys.exit(main())
