"""kill -9 of the receiver at random moments while instances arrive from several senders."""

import os
import signal
import time

from tests.faults.accounting import Watch, judge, settle
from tests.faults.outcome import Clock, Ground, Outcome
from tests.faults.sending import Senders, dealt, make_studies
from tests.system import wait_until

FAULT = "receiver-kill"
FULL = 100
STUDIES, SLICES = 4, 9  # a round: 108 instances


def run(ground: Ground, rounds: int) -> Outcome:
    moments, outcome = ground.moments(FAULT), Outcome(FAULT, rounds, recovery_s=0.0)
    with ground.embedded(FAULT) as system:
        studies = make_studies(
            system.folder / "sent", range(100_000, 100_000 + STUDIES * rounds), slices=SLICES
        )
        instances = [instance for study in studies for instance in study]
        system.start()
        with Watch(system) as watch, Senders(system.port, dealt(instances, 4)) as senders:
            for number, count in enumerate(
                sorted(moments.sample(range(len(instances) - 90), rounds)), 1
            ):
                wait_until(
                    lambda count=count: senders.count >= count or senders.done, 300, system.tail
                )
                time.sleep(moments.uniform(0, 0.3))  # any moment: nothing is waited for on purpose
                os.kill(system.parts()["scp"], signal.SIGKILL)
                clock = Clock()
                wait_until(system.answers, 60, system.tail)
                outcome.recovery_s = max(outcome.recovery_s or 0, clock.s)
                ground.progress(
                    f"{FAULT} {number}/{rounds}: {senders.count} of {len(instances)} acknowledged"
                )
            wait_until(lambda: senders.done, 600, system.tail)
            settle(system, senders.acknowledged, 600)
        judge(system, senders.acknowledged, outcome)
        outcome.partial |= watch.partial
    return outcome
