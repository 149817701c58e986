"""The broker is flushed, or killed and restarted empty, at random moments under load."""

import time

from tests.faults.accounting import PartialResultWatch, check_outcome, ended, wait_until_settled
from tests.faults.outcome import Environment, Outcome
from tests.faults.sending import Senders, distribute, make_studies
from tests.system import closing_database, wait_until

FAULT = "redis-flush"
FULL_ROUNDS = 50
STUDIES = 20  # per flush


def run(environment: Environment, rounds: int) -> Outcome:
    rng, outcome = environment.rng(FAULT), Outcome(FAULT, rounds)
    with (
        environment.distributed(FAULT) as system,
        closing_database(system.database_url) as database,
    ):
        studies = make_studies(system.folder / "sent", range(500_000, 500_000 + STUDIES * rounds))
        queue = [instance for study in studies for instance in study]
        system.start("scp", "sweep")
        environment.start_workers(system, 2)
        with (
            PartialResultWatch(system) as watch,
            Senders(system.port, distribute(queue, 3)) as senders,
        ):
            for number, count in enumerate(sorted(rng.sample(range(len(studies) - 1), rounds)), 1):
                wait_until(lambda count=count: ended(database) >= count, 300, system.tail)
                time.sleep(rng.uniform(0, 0.5))  # at any moment, on purpose
                if rng.random() < 0.5:
                    environment.redis.flush()
                else:
                    environment.redis.kill()
                    environment.redis.__enter__()
                environment.progress(
                    f"{FAULT} {number}/{rounds}: {ended(database)} of {len(studies)} studies ended"
                )
            wait_until(lambda: senders.done, 600, system.tail)
            wait_until_settled(system, senders.acknowledged, 600)
        check_outcome(system, senders.acknowledged, outcome)
        outcome.partial |= watch.partial
    return outcome
