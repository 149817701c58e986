"""Power cuts while instances arrive: every process is killed, and unsynced writes are lost.

All of them, or a random part.
"""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from db.database import DatabaseUnavailable
from tests.faults.accounting import check_outcome, partial_in, snapshot, wait_until_settled
from tests.faults.outcome import (
    SMALL_STUDY_SETTINGS,
    Environment,
    Outcome,
    Stopwatch,
    killed_at_end,
)
from tests.faults.powercut import PowerCut
from tests.faults.sending import Senders, distribute, make_studies
from tests.system import System, closing_database, wait_until

FAULT = "power-cut"
FULL_ROUNDS = 20
STUDIES, SLICES = 4, 8  # per round: 96 instances


def run(environment: Environment, rounds: int, ignore_fsync: str = "") -> Outcome:
    """``ignore_fsync``: as on a disk that ignores it (see ``powercut.c``); losses are expected."""
    rng, outcome = environment.rng(FAULT), Outcome(FAULT, rounds, recovery_s=0.0)
    folder = environment.folder(FAULT + ignore_fsync)
    home = folder / "home"
    home.mkdir()
    power = PowerCut(home, folder / "side", ignore_fsync)
    with killed_at_end(System(folder, SMALL_STUDY_SETTINGS | power.environment)) as system:
        studies = make_studies(
            folder / "sent", range(200_000, 200_000 + STUDIES * rounds), slices=SLICES
        )
        instances = [instance for study in studies for instance in study]
        system.start()
        with Senders(system.port, distribute(instances, 4)) as senders:
            for number, count in enumerate(
                sorted(rng.sample(range(len(instances) - 90), rounds)), 1
            ):
                wait_until(
                    lambda count=count: senders.count >= count or senders.done, 300, system.tail
                )
                time.sleep(rng.uniform(0, 0.3))  # at any moment, on purpose
                system.kill()
                power.cut(rng if number % 2 else None)
                outcome.partial |= _partial(home, folder / f"copy-{number}")
                stopwatch = Stopwatch()
                system.start()
                outcome.recovery_s = max(outcome.recovery_s or 0, stopwatch.s)
                environment.progress(
                    f"{FAULT} {number}/{rounds}: {senders.count} of {len(instances)} acknowledged"
                )
            wait_until(lambda: senders.done, 600, system.tail)
        system.kill()
        power.cut()
        system.start()
        wait_until_settled(system, senders.acknowledged, 300 if not ignore_fsync else 5)
        check_outcome(system, senders.acknowledged, outcome)
    return outcome


def _partial(home: Path, copy: Path) -> set[str]:
    """Looks in a copy, because opening an SQLite database may write to it."""
    copy.mkdir()
    for file in home.glob("lumbar.sqlite*"):
        shutil.copy(file, copy)
    with (
        suppress(DatabaseUnavailable),
        closing_database(f"sqlite:///{copy / 'lumbar.sqlite'}") as database,
    ):
        return partial_in(snapshot(database))
    return set()
