"""Every system call from an image's arrival to its rows is a crash point, and each is tried.

A child process does one scenario and dies before its nth call that changes a file; then the power
is cut, with a random part of what was not synced kept; another process recovers as at a start-up.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lumbar.store.files import Store
from tests.databases import sqlite_database
from tests.faults import crash_point_process
from tests.faults.outcome import Environment, Outcome
from tests.faults.powercut import PowerCut

FAULT = "crash-points"
# Its crash is followed by another registrar before the power is cut.
TAKEN_OVER = crash_point_process.taken_over.__name__
FULL_ROUNDS = 4  # of all crash points: three with a random part kept, one with nothing


def run(
    environment: Environment,
    rounds: int,
    counted: str = "",
    ignore_fsync: str = "",
    scenarios: Iterable[str] = tuple(crash_point_process.SCENARIOS),
) -> Outcome:
    """``counted``: a part of the paths whose calls count; empty: those of the database, too."""
    outcome, rng = Outcome(FAULT, 0), environment.rng(FAULT)
    folder = environment.folder(FAULT + ignore_fsync)
    template = folder / "template"
    Store(template / "store").create()
    sqlite_database(template / "lumbar.sqlite")
    home = folder / "home"
    home.mkdir()
    power = PowerCut(home, folder / "side", ignore_fsync)
    with _process(power, folder / "process.log", counted) as ask:
        for number in range(1, rounds + 1):
            for scenario in scenarios:
                point = 0
                completed = False
                while not completed:
                    point += 1
                    _empty(home)
                    shutil.copytree(template, home, dirs_exist_ok=True)
                    completed, acknowledged = ask(f"{scenario} {point}")
                    if scenario == TAKEN_OVER:
                        ask("register 0")
                    # A part kept although fsync was ignored may be half a database.
                    part_kept = number % FULL_ROUNDS and not ignore_fsync
                    power.cut(rng if part_kept else None)
                    recovered = ask("recover 0")
                    _check(outcome, f"{scenario}, call {point}", acknowledged, recovered)
                outcome.rounds += point
                outcome.note = f"{outcome.rounds} crash points"
                environment.progress(f"{FAULT} {number}/{rounds}: {scenario}, {point} calls")
    return outcome


def _check(
    outcome: Outcome, crash: str, acknowledged: list[str], recovered: dict[str, list[str]]
) -> None:
    """What was acknowledged is there once, whole; nothing else than what was sent is there."""
    outcome.acknowledged += len(acknowledged)
    outcome.lost |= {f"{uid} ({crash})" for uid in set(acknowledged) - set(recovered["intact"])}
    outcome.lost |= {f"the file of {uid} ({crash})" for uid in recovered["damaged"]}
    outcome.lost |= {f"left in arrived: {name} ({crash})" for name in recovered["arrived"]}
    outcome.duplicated |= {f"{uid} ({crash})" for uid in recovered["twice"]}


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _process(power: PowerCut, log: Path, counted: str) -> Iterator[Any]:
    """A process that has everything imported and does each request in a fork of its own."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crash_point_process", str(power.root), counted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | power.environment,
        )
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - both are pipes
    to, answers = process.stdin, process.stdout

    def ask(request: str) -> Any:
        to.write(request + "\n")
        to.flush()
        return json.loads(_line(answers, log))

    try:
        yield ask
    finally:
        to.close()
        answers.close()
        process.wait()


def _line(stream: IO[str], log: Path) -> str:
    line = stream.readline()
    assert line, log.read_text()[-3000:]
    return line
