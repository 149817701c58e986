"""kill -9 of the receiver at random moments while instances arrive from several senders."""

import os
import signal
import time

from tests.faults.accounting import PartialResultWatch, check_outcome, wait_until_settled
from tests.faults.outcome import Environment, Outcome, Stopwatch
from tests.faults.sending import Senders, distribute, make_studies
from tests.system import wait_until

FAULT = "receiver-kill"
FULL_ROUNDS = 100
STUDIES, SLICES = 4, 9  # per round: 108 instances


def run(environment: Environment, rounds: int) -> Outcome:
    rng, outcome = environment.rng(FAULT), Outcome(FAULT, rounds, recovery_s=0.0)
    with environment.embedded(FAULT) as system:
        studies = make_studies(
            system.folder / "sent", range(100_000, 100_000 + STUDIES * rounds), slices=SLICES
        )
        instances = [instance for study in studies for instance in study]
        system.start()
        with (
            PartialResultWatch(system) as watch,
            Senders(system.port, distribute(instances, 4)) as senders,
        ):
            for number, count in enumerate(
                sorted(rng.sample(range(len(instances) - 90), rounds)), 1
            ):
                wait_until(
                    lambda count=count: senders.count >= count or senders.done, 300, system.tail
                )
                time.sleep(rng.uniform(0, 0.3))  # at any moment, on purpose
                os.kill(system.parts()["scp"], signal.SIGKILL)
                stopwatch = Stopwatch()
                wait_until(system.answers, 60, system.tail)
                outcome.recovery_s = max(outcome.recovery_s or 0, stopwatch.s)
                environment.progress(
                    f"{FAULT} {number}/{rounds}: {senders.count} of {len(instances)} acknowledged"
                )
            wait_until(lambda: senders.done, 600, system.tail)
            wait_until_settled(system, senders.acknowledged, 600)
        check_outcome(system, senders.acknowledged, outcome)
        outcome.partial |= watch.partial
    return outcome
