"""Many studies of few patients, interleaved, sent twice and late, are not mixed up."""

from sqlalchemy import select

from db.models import FindingRow, Study
from tests.faults.accounting import PartialResultWatch, check_outcome, snapshot, wait_until_settled
from tests.faults.outcome import Environment, Outcome
from tests.faults.sending import Senders, SentInstance, distribute, make_study, shuffled
from tests.system import System, closing_database, wait_until

FAULT = "interleaved"
FULL_ROUNDS = 10
STUDIES, PATIENTS, SLICES = 100, 30, 2  # per round
AGAIN = 0.2  # this part of the instances is sent twice
LATE = 0.2  # this part of the studies gets one more instance after its result


def run(environment: Environment, rounds: int, studies: int = STUDIES) -> Outcome:
    rng, outcome = environment.rng(FAULT), Outcome(FAULT, rounds)
    with environment.distributed(FAULT) as system:
        (system.folder / "sent").mkdir()
        system.start("scp", "sweep")
        environment.start_workers(system, 2)
        sent: dict[str, SentInstance] = {}
        with PartialResultWatch(system) as watch:
            for number in range(rounds):
                on_time, delayed = [], []
                for index in range(studies):
                    patient = 100 * number + rng.randrange(PATIENTS)
                    name = 700_000 + studies * number + index
                    instances = make_study(
                        system.folder / "sent", name, slices=SLICES, patient=patient
                    )
                    on_time += instances
                    if rng.random() < LATE:
                        delayed.append(on_time.pop())
                repeated = rng.sample(on_time, int(AGAIN * len(on_time)))
                _send(system, shuffled(rng, on_time + repeated))
                wait_until_settled(system, on_time, 600)
                _send(system, shuffled(rng, delayed + rng.sample(on_time, len(delayed))))
                wait_until_settled(system, delayed, 600)
                sent |= {instance.uid: instance for instance in on_time + delayed}
                environment.progress(
                    f"{FAULT} {number + 1}/{rounds}: "
                    f"{len(sent)} instances of {studies * (number + 1)} studies"
                )
        check_outcome(system, sent.values(), outcome)
        outcome.partial |= watch.partial
        outcome.lost |= _mixed(system, sent)
        outcome.note = f"{watch.checks} checks"
    return outcome


def _send(system: System, instances: list[SentInstance]) -> None:
    with Senders(system.port, distribute(instances, 4), batch=40) as senders:
        wait_until(lambda: senders.done, 600, system.tail)


def _mixed(system: System, sent: dict[str, SentInstance]) -> set[str]:
    """Instances under another study than their header's, and findings in another study's image."""
    with closing_database(system.database_url) as database:
        wrong = {
            f"{uid} in another study"
            for study, now in snapshot(database).items()
            for uid in now.instances
            if sent[uid].study != study
        }
        with database.reading() as session:
            rows = session.execute(
                select(Study.study_instance_uid, FindingRow.sop_instance_uid)
                .join(FindingRow, FindingRow.study_id == Study.id)
                .where(FindingRow.sop_instance_uid.is_not(None))
                .distinct()
            )
            return wrong | {
                f"a finding of {study} in {uid}" for study, uid in rows if sent[uid].study != study
            }
