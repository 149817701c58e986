"""The broker flushed, or killed and started again with nothing in it, at random moments of a busy day."""

import time

from tests.faults.accounting import Watch, ended, judge, settle
from tests.faults.outcome import Ground, Outcome
from tests.faults.sending import Senders, dealt, make_studies
from tests.system import closing_database, wait_until

FAULT = "redis-flush"
FULL = 50
STUDIES = 20  # a flush


def run(ground: Ground, rounds: int) -> Outcome:
    moments, outcome = ground.moments(FAULT), Outcome(FAULT, rounds)
    with ground.distributed(FAULT) as system, closing_database(system.database_url) as database:
        studies = make_studies(system.folder / "sent", range(500_000, 500_000 + STUDIES * rounds))
        queue = [instance for study in studies for instance in study]
        system.start("scp", "sweep")
        ground.start_workers(system, 2)
        with Watch(system) as watch, Senders(system.port, dealt(queue, 3)) as senders:
            for number, count in enumerate(
                sorted(moments.sample(range(len(studies) - 1), rounds)), 1
            ):
                wait_until(lambda count=count: ended(database) >= count, 300, system.tail)
                time.sleep(moments.uniform(0, 0.5))  # any moment: nothing is waited for on purpose
                if moments.random() < 0.5:
                    ground.redis.flush()
                else:
                    ground.redis.kill()
                    ground.redis.__enter__()
                ground.progress(
                    f"{FAULT} {number}/{rounds}: {ended(database)} of {len(studies)} studies ended"
                )
            wait_until(lambda: senders.done, 600, system.tail)
            settle(system, senders.acknowledged, 600)
        judge(system, senders.acknowledged, outcome)
        outcome.partial |= watch.partial
    return outcome
