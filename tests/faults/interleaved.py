"""Many studies of fewer patients, interleaved over several associations, sent twice and late: nothing is mixed up."""

from sqlalchemy import select

from db.models import FindingRow, Study
from tests.faults.accounting import Watch, judge, settle, snapshot
from tests.faults.outcome import Ground, Outcome
from tests.faults.sending import Senders, Sent, dealt, make_study, shuffled
from tests.system import System, closing_database, wait_until

FAULT = "interleaved"
FULL = 10
STUDIES, PATIENTS, SLICES = 100, 30, 2  # a round
AGAIN, LATE = (
    0.2,
    0.2,
)  # of the instances are sent twice; of the studies get one when they have their result


def run(ground: Ground, rounds: int, studies: int = STUDIES) -> Outcome:
    moments, outcome = ground.moments(FAULT), Outcome(FAULT, rounds)
    with ground.distributed(FAULT) as system:
        (system.folder / "sent").mkdir()
        system.start("scp", "sweep")
        ground.start_workers(system, 2)
        sent: dict[str, Sent] = {}
        with Watch(system) as watch:
            for number in range(rounds):
                first, late = [], []
                for one in range(studies):
                    patient = 100 * number + moments.randrange(PATIENTS)
                    name = 700_000 + studies * number + one
                    instances = make_study(
                        system.folder / "sent", name, slices=SLICES, patient=patient
                    )
                    first += instances
                    if moments.random() < LATE:
                        late.append(first.pop())
                again = moments.sample(first, int(AGAIN * len(first)))
                _send(system, shuffled(moments, first + again))
                settle(system, first, 600)
                _send(system, shuffled(moments, late + moments.sample(first, len(late))))
                settle(system, late, 600)
                sent |= {instance.uid: instance for instance in first + late}
                ground.progress(
                    f"{FAULT} {number + 1}/{rounds}: {len(sent)} instances of {studies * (number + 1)} studies"
                )
        judge(system, sent.values(), outcome)
        outcome.partial |= watch.partial
        outcome.lost |= _mixed(system, sent)
        outcome.note = f"{watch.looks} looks"
    return outcome


def _send(system: System, instances: list[Sent]) -> None:
    with Senders(system.port, dealt(instances, 4), batch=40) as senders:
        wait_until(lambda: senders.done, 600, system.tail)


def _mixed(system: System, sent: dict[str, Sent]) -> set[str]:
    """Instances under another study than their header names, and findings placed in another study's image."""
    with closing_database(system.database_url) as database:
        wrong = {
            f"{uid} in another study"
            for study, now in snapshot(database).items()
            for uid in now.instances
            if sent[uid].study != study
        }
        with database.reading() as session:
            places = session.execute(
                select(Study.study_instance_uid, FindingRow.sop_instance_uid)
                .join(FindingRow, FindingRow.study_id == Study.id)
                .where(FindingRow.sop_instance_uid.is_not(None))
                .distinct()
            )
            return wrong | {
                f"a finding of {study} in {uid}"
                for study, uid in places
                if sent[uid].study != study
            }
