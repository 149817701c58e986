"""PostgreSQL stopped in the middle of everything and started again, under load: all goes on without a hand."""

import time

from tests.faults.accounting import Watch, judge, settle
from tests.faults.outcome import Clock, Ground, Outcome
from tests.faults.sending import Senders, dealt, make_studies
from tests.system import wait_until

FAULT = "postgres-restart"
FULL = 5
STUDIES = 24  # a restart


def run(ground: Ground, rounds: int) -> Outcome:
    moments, outcome = ground.moments(FAULT), Outcome(FAULT, rounds, recovery_s=0.0)
    with ground.distributed(FAULT) as system:
        studies = make_studies(system.folder / "sent", range(600_000, 600_000 + STUDIES * rounds))
        queue = [instance for study in studies for instance in study]
        system.start("scp", "sweep")
        ground.start_workers(system, 2)
        with Watch(system) as watch, Senders(system.port, dealt(queue, 3), batch=5) as senders:
            for number, count in enumerate(
                sorted(moments.sample(range(len(queue) - 30), rounds)), 1
            ):
                wait_until(lambda count=count: senders.count >= count, 300, system.tail)
                time.sleep(moments.uniform(0, 0.3))  # any moment: nothing is waited for on purpose
                ground.postgres.restart_at_once()
                clock, before = Clock(), senders.count
                wait_until(
                    lambda before=before: senders.count > before or senders.done, 120, system.tail
                )
                outcome.recovery_s = max(outcome.recovery_s or 0, clock.s)
                ground.progress(
                    f"{FAULT} {number}/{rounds}: {senders.count} of {len(queue)} acknowledged"
                )
            wait_until(lambda: senders.done, 600, system.tail)
            settle(system, senders.acknowledged, 600)
        judge(system, senders.acknowledged, outcome)
        outcome.partial |= watch.partial
        outcome.note = f"{senders.refused} associations were told to send again"
    return outcome
