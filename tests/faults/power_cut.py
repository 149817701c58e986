"""Power cuts while instances arrive: every process dies, and whatever was not fsynced is gone."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from db.database import DatabaseUnavailable
from tests.faults.accounting import judge, partial_in, settle, snapshot
from tests.faults.outcome import SMALL, Clock, Ground, Outcome, ending
from tests.faults.powercut import PowerCut
from tests.faults.sending import Senders, dealt, make_studies
from tests.system import System, closing_database, wait_until

FAULT = "power-cut"
FULL = 20
STUDIES, SLICES = 4, 8  # a round: 96 instances


def run(ground: Ground, rounds: int, ignore_fsync: str = "") -> Outcome:
    """``ignore_fsync``: as on a disk that lies (see ``powercut.c``); then losses must be found."""
    moments, outcome = ground.moments(FAULT), Outcome(FAULT, rounds, recovery_s=0.0)
    folder = ground.folder(FAULT + ignore_fsync)
    home = folder / "home"
    home.mkdir()
    power = PowerCut(home, folder / "side", ignore_fsync)
    with ending(System(folder, SMALL | power.environment)) as system:
        studies = make_studies(
            folder / "sent", range(200_000, 200_000 + STUDIES * rounds), slices=SLICES
        )
        instances = [instance for study in studies for instance in study]
        system.start()
        with Senders(system.port, dealt(instances, 4)) as senders:
            for number, count in enumerate(
                sorted(moments.sample(range(len(instances) - 90), rounds)), 1
            ):
                wait_until(
                    lambda count=count: senders.count >= count or senders.done, 300, system.tail
                )
                time.sleep(moments.uniform(0, 0.3))  # any moment: nothing is waited for on purpose
                system.kill()
                power.cut()
                outcome.partial |= _partial(home, folder / f"copy-{number}")
                clock = Clock()
                system.start()
                outcome.recovery_s = max(outcome.recovery_s or 0, clock.s)
                ground.progress(
                    f"{FAULT} {number}/{rounds}: {senders.count} of {len(instances)} acknowledged"
                )
            wait_until(lambda: senders.done, 600, system.tail)
        system.kill()
        power.cut()
        system.start()
        settle(system, senders.acknowledged, 300 if not ignore_fsync else 5)
        judge(system, senders.acknowledged, outcome)
    return outcome


def _partial(home: Path, copy: Path) -> set[str]:
    """Looked for in a copy: whoever opens a database of SQLite may write to it."""
    copy.mkdir()
    for file in home.glob("lumbar.sqlite*"):
        shutil.copy(file, copy)
    with (
        suppress(DatabaseUnavailable),
        closing_database(f"sqlite:///{copy / 'lumbar.sqlite'}") as database,
    ):
        return partial_in(snapshot(database))
    return set()
