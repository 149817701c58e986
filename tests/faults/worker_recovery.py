"""A worker is killed in an analysis, with the default leases: its job resumes within 30 s."""

from sqlalchemy import select

from db.models import Job, JobKind
from tests.faults.accounting import check_outcome, wait_until_settled
from tests.faults.outcome import Environment, Outcome, Stopwatch
from tests.faults.sending import Senders, make_studies
from tests.system import System, closing_database, wait_until

FAULT = "worker-recovery"
FULL_ROUNDS = 5
BOUND_S = 30.0


def run(environment: Environment, rounds: int) -> Outcome:
    outcome = Outcome(FAULT, rounds, recovery_s=0.0, recovery_bound_s=BOUND_S)
    defaults = dict.fromkeys(("LUMBAR_LEASE_S", "LUMBAR_SWEEP_EVERY_S"), "")
    with environment.distributed(FAULT, TESTS_READING_S="8", **defaults) as system:
        system.start("scp", "sweep")
        (worker,) = system.start("worker")
        for number in range(rounds):
            (study,) = make_studies(system.folder / "sent", [400_000 + number])
            with Senders(system.port, [study]) as senders:
                wait_until(lambda senders=senders: senders.done, 60, system.tail)
            wait_until(lambda: _attempt(system) == (number + 1, 1), 60, system.tail)  # noqa: B023
            (other,) = system.start("worker")
            worker.kill()
            stopwatch = Stopwatch()
            wait_until(lambda: _attempt(system) == (number + 1, 2), 90, system.tail)  # noqa: B023
            elapsed_s = stopwatch.s
            outcome.recovery_s = max(outcome.recovery_s or 0, elapsed_s)
            worker = other
            wait_until_settled(system, senders.acknowledged, 120)
            check_outcome(system, senders.acknowledged, outcome)
            environment.progress(f"{FAULT} {number + 1}/{rounds}: {elapsed_s:.1f} s")
    return outcome


def _attempt(system: System) -> tuple[int, int]:
    """How many analyses have been started, and the attempts of the last one."""
    attempted = (
        select(Job.attempts).where(Job.kind == JobKind.ANALYSE, Job.attempts > 0).order_by(Job.id)
    )
    with closing_database(system.database_url) as database, database.reading() as session:
        attempts = session.scalars(attempted).all()
    return len(attempts), attempts[-1] if attempts else 0
