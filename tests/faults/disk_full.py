"""The store's disk is full: senders get 0xA700, nothing is lost, and it resumes with free space."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.accounting import PartialResultWatch, check_outcome, wait_until_settled
from tests.faults.outcome import Environment, Outcome
from tests.faults.sending import Senders, distribute, make_studies
from tests.system import wait_until

FAULT = "disk-full"
FULL_ROUNDS = 5
STUDIES, SLICES, SIDE = 12, 2, 64  # per round: 72 instances of 8 KiB of pixels
DISK_MIB = 64
ROOM_KIB = 400  # free at the beginning of a round: about 40 instances


def run(environment: Environment, rounds: int) -> Outcome:
    outcome = Outcome(FAULT, rounds)
    folder = environment.folder(f"{FAULT}-disk")
    no_reserve = {"LUMBAR_DISK_REMOVE_ABOVE": "1", "LUMBAR_DISK_REFUSE_ABOVE": "1"}
    with _disk(folder) as mounted, environment.embedded(FAULT, **no_reserve) as system:
        if not mounted:
            return Outcome(FAULT, 0, note="not run: mounting a small disk needs root", not_run=True)
        system.set(
            home=str(folder / "home"), database_url=f"sqlite:///{system.folder / 'lumbar.sqlite'}"
        )
        system.start()
        acknowledged, refused = [], 0
        with PartialResultWatch(system) as watch:
            for number in range(rounds):
                first = 800_000 + STUDIES * number
                studies = make_studies(
                    system.folder / "sent", range(first, first + STUDIES), slices=SLICES, side=SIDE
                )
                queue = [instance for study in studies for instance in study]
                _fill(folder, _free(folder) - ROOM_KIB * 1024)
                with Senders(system.port, distribute(queue, 2)) as senders:
                    wait_until(lambda: senders.refused > 3, 60, system.tail)
                    refused += senders.refused
                    before = Outcome(FAULT, 0)
                    check_outcome(system, acknowledged, before)
                    outcome.lost |= before.lost
                    (folder / "filler").unlink()
                    wait_until(lambda: senders.done, 120, system.tail)
                    acknowledged += senders.acknowledged
                wait_until_settled(system, acknowledged, 120)
                environment.progress(
                    f"{FAULT} {number + 1}/{rounds}: {len(acknowledged)} acknowledged"
                )
        if "A700" not in system.log.read_text():
            outcome.lost.add("the answer 0xA700")
        check_outcome(system, acknowledged, outcome)
        outcome.partial |= watch.partial
        outcome.note = f"{refused} associations refused while full"
        system.kill()
    return outcome


@contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """Mounts a small disk on the folder; False if that is not permitted."""
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    mounted = (
        os.geteuid() == 0
        and subprocess.run(["mount", *options], capture_output=True).returncode == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _fill(folder: Path, size: int) -> None:
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
