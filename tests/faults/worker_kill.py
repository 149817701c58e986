"""kill -9 of workers at random moments: in an analysis, and after the PACS said "stored" but before the row says so."""

import time

from sqlalchemy import func, select

from db.models import Job, JobKind
from tests.faults.accounting import Watch, judge, settle
from tests.faults.outcome import Clock, Ground, Outcome
from tests.faults.sending import Senders, dealt, make_studies
from tests.system import System, closing_database, wait_until

FAULT = "worker-kill"
FULL = 200
STUDIES = 2  # a kill
WORKERS = 2


def run(ground: Ground, rounds: int) -> Outcome:
    moments, outcome, pacs = ground.moments(FAULT), Outcome(FAULT, rounds), ground.orthanc
    settings = {
        "LUMBAR_DESTINATIONS": f'{{"pacs": "dicom://{pacs.ae_title}@127.0.0.1:{pacs.dicom_port}"}}',
        "LUMBAR_WORKER_LOSSES": "1000",  # else a study unlucky enough would rightly be given up
        "TESTS_READING_S": "0.3",
        "TESTS_STORED_S": "0.2",
    }
    with ground.distributed(FAULT, **settings) as system:
        studies = make_studies(system.folder / "sent", range(300_000, 300_000 + STUDIES * rounds))
        system.start("scp", "sweep")
        workers = ground.start_workers(system, WORKERS)
        queue = [instance for study in studies for instance in study]
        with Watch(system) as watch, Senders(system.port, dealt(queue, 2)) as senders:
            wait_until(lambda: "job.started" in system.tail(), 120, system.tail)
            for kill in range(rounds):
                if kill % 2:
                    time.sleep(
                        moments.uniform(0, 2)
                    )  # any moment: nothing is waited for on purpose
                else:
                    _wait_for_a_report(ground)
                victim = moments.randrange(WORKERS)
                workers[victim] = system.replace(workers[victim])
                ground.progress(f"{FAULT} {kill + 1}/{rounds}")
            wait_until(lambda: senders.done, 600, system.tail)
            settle(system, senders.acknowledged, 600)
        judge(system, senders.acknowledged, outcome, pacs)
        outcome.partial |= watch.partial
        outcome.note = "{} killed in an analysis, {} in a delivery".format(*_losses(system))
    return outcome


def _wait_for_a_report(ground: Ground) -> None:
    """Until the PACS has one more, for some seconds: now the worker that sent it has not written its row."""
    clock, before = Clock(), _held(ground)
    while clock.s < 5 and _held(ground) == before:
        time.sleep(0.01)


def _held(ground: Ground) -> int:
    return int(ground.orthanc.rest("/statistics")["CountInstances"])


def _losses(system: System) -> tuple[int, int]:
    with closing_database(system.database_url) as database, database.reading() as session:
        rows = session.execute(select(Job.kind, func.sum(Job.losses)).group_by(Job.kind))
        losses = {kind: count for kind, count in rows}  # noqa: C416 - typed rows
    return losses.get(JobKind.ANALYSE, 0), losses.get(JobKind.DELIVER, 0)
