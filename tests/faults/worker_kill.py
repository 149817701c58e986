"""kill -9 of workers and lanes at random moments: in an analysis, or after storage in the PACS."""

import time

from sqlalchemy import func, select

from db.models import Job, JobKind
from tests.faults.accounting import PartialResultWatch, check_outcome, wait_until_settled
from tests.faults.outcome import Environment, Outcome, Stopwatch
from tests.faults.sending import Senders, distribute, make_studies
from tests.system import System, closing_database, wait_until

FAULT = "worker-kill"
FULL_ROUNDS = 200
STUDIES = 2  # per kill
WORKERS = 2


def run(environment: Environment, rounds: int) -> Outcome:
    rng, outcome, pacs = environment.rng(FAULT), Outcome(FAULT, rounds), environment.orthanc
    settings = {
        "LUMBAR_DESTINATIONS": f'{{"pacs": "dicom://{pacs.ae_title}@127.0.0.1:{pacs.dicom_port}"}}',
        "LUMBAR_WORKER_LOSSES": "1000",  # else an unlucky study would rightly be dead-lettered
        "TESTS_READING_S": "0.3",
        "TESTS_STORED_S": "0.2",
    }
    with environment.distributed(FAULT, **settings) as system:
        studies = make_studies(system.folder / "sent", range(300_000, 300_000 + STUDIES * rounds))
        _, _, lanes = system.start("scp", "sweep", "deliver")
        workers = environment.start_workers(system, WORKERS)
        queue = [instance for study in studies for instance in study]
        with (
            PartialResultWatch(system) as watch,
            Senders(system.port, distribute(queue, 2)) as senders,
        ):
            wait_until(lambda: "job.started" in system.tail(), 120, system.tail)
            for kill in range(rounds):
                if kill % 2:
                    time.sleep(rng.uniform(0, 2))  # at any moment, on purpose
                    victim = rng.randrange(WORKERS)
                    workers[victim] = system.replace(workers[victim])
                else:
                    _wait_for_a_report(environment)
                    lanes = system.replace(lanes)
                environment.progress(f"{FAULT} {kill + 1}/{rounds}")
            wait_until(lambda: senders.done, 600, system.tail)
            wait_until_settled(system, senders.acknowledged, 600)
        check_outcome(system, senders.acknowledged, outcome, pacs)
        outcome.partial |= watch.partial
        outcome.note = "{} killed in an analysis, {} in a delivery".format(*_losses(system))
    return outcome


def _wait_for_a_report(environment: Environment) -> None:
    """Waits some seconds until the PACS has one more: its lane has not written the row yet."""
    stopwatch, before = Stopwatch(), _stored_in_pacs(environment)
    while stopwatch.s < 5 and _stored_in_pacs(environment) == before:
        time.sleep(0.01)


def _stored_in_pacs(environment: Environment) -> int:
    return int(environment.orthanc.rest("/statistics")["CountInstances"])


def _losses(system: System) -> tuple[int, int]:
    with closing_database(system.database_url) as database, database.reading() as session:
        rows = session.execute(select(Job.kind, func.sum(Job.losses)).group_by(Job.kind))
        losses = {kind: count for kind, count in rows}  # noqa: C416 - typed rows
    return losses.get(JobKind.ANALYSE, 0), losses.get(JobKind.DELIVER, 0)
