"""A worker killed in an analysis, with the leases as they come: its job goes on within 30 s."""

from sqlalchemy import select

from db.models import Job, JobKind
from tests.faults.accounting import judge, settle
from tests.faults.outcome import Clock, Ground, Outcome
from tests.faults.sending import Senders, make_studies
from tests.system import System, closing_database, wait_until

FAULT = "worker-recovery"
FULL = 5
BOUND_S = 30.0


def run(ground: Ground, rounds: int) -> Outcome:
    outcome = Outcome(FAULT, rounds, recovery_s=0.0, recovery_bound_s=BOUND_S)
    as_it_comes = dict.fromkeys(("LUMBAR_LEASE_S", "LUMBAR_SWEEP_EVERY_S"), "")
    with ground.distributed(FAULT, TESTS_READING_S="8", **as_it_comes) as system:
        system.start("scp", "sweep")
        (worker,) = system.start("worker")
        for number in range(rounds):
            (study,) = make_studies(system.folder / "sent", [400_000 + number])
            with Senders(system.port, [study]) as senders:
                wait_until(lambda senders=senders: senders.done, 60, system.tail)
            wait_until(lambda: _attempt(system) == (number + 1, 1), 60, system.tail)  # noqa: B023
            (other,) = system.start("worker")
            worker.kill()
            clock = Clock()
            wait_until(lambda: _attempt(system) == (number + 1, 2), 90, system.tail)  # noqa: B023
            taken_s = clock.s
            outcome.recovery_s = max(outcome.recovery_s or 0, taken_s)
            worker = other
            settle(system, senders.acknowledged, 120)
            judge(system, senders.acknowledged, outcome)
            ground.progress(f"{FAULT} {number + 1}/{rounds}: {taken_s:.1f} s")
    return outcome


def _attempt(system: System) -> tuple[int, int]:
    """How many analyses were begun, and how often the last of them."""
    begun = (
        select(Job.attempts).where(Job.kind == JobKind.ANALYSE, Job.attempts > 0).order_by(Job.id)
    )
    with closing_database(system.database_url) as database, database.reading() as session:
        attempts = session.scalars(begun).all()
    return len(attempts), attempts[-1] if attempts else 0
