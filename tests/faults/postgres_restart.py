"""PostgreSQL is restarted under load: everything resumes without an operator."""

import time

from tests.faults.accounting import PartialResultWatch, check_outcome, wait_until_settled
from tests.faults.outcome import Environment, Outcome, Stopwatch
from tests.faults.sending import Senders, distribute, make_studies
from tests.system import wait_until

FAULT = "postgres-restart"
FULL_ROUNDS = 5
STUDIES = 24  # per restart


def run(environment: Environment, rounds: int) -> Outcome:
    rng, outcome = environment.rng(FAULT), Outcome(FAULT, rounds, recovery_s=0.0)
    with environment.distributed(FAULT) as system:
        studies = make_studies(system.folder / "sent", range(600_000, 600_000 + STUDIES * rounds))
        queue = [instance for study in studies for instance in study]
        system.start("scp", "sweep")
        environment.start_workers(system, 2)
        with (
            PartialResultWatch(system) as watch,
            Senders(system.port, distribute(queue, 3), batch=5) as senders,
        ):
            for number, count in enumerate(sorted(rng.sample(range(len(queue) - 30), rounds)), 1):
                wait_until(lambda count=count: senders.count >= count, 300, system.tail)
                time.sleep(rng.uniform(0, 0.3))  # at any moment, on purpose
                environment.postgres.restart_at_once()
                stopwatch, before = Stopwatch(), senders.count
                wait_until(
                    lambda before=before: senders.count > before or senders.done, 120, system.tail
                )
                outcome.recovery_s = max(outcome.recovery_s or 0, stopwatch.s)
                environment.progress(
                    f"{FAULT} {number}/{rounds}: {senders.count} of {len(queue)} acknowledged"
                )
            wait_until(lambda: senders.done, 600, system.tail)
            wait_until_settled(system, senders.acknowledged, 600)
        check_outcome(system, senders.acknowledged, outcome)
        outcome.partial |= watch.partial
        outcome.note = f"{senders.refused} associations had to be repeated"
    return outcome
