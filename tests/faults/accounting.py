"""What was acknowledged, held against the database, the store and the PACS."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Self

from sqlalchemy import exists, func, select

from db.database import Database, DatabaseUnavailable
from db.models import (
    Delivery,
    FindingRow,
    Instance,
    Job,
    JobState,
    Patient,
    ReportRow,
    Series,
    Study,
    StudyState,
)
from lumbar import VERSION
from lumbar.reports.report_uids import report_uid
from lumbar.reports.sr import OUTPUT
from lumbar.settings import Settings
from lumbar.spine.provenance import Provenance
from lumbar.store.files import Store
from tests.faults.outcome import Clock, Outcome
from tests.faults.sending import Sent, dataset_of
from tests.peers import Orthanc
from tests.stub_program import StubNetworks
from tests.system import System, closing_database


@dataclass
class StudyNow:
    """A study in one snapshot of the database."""

    state: StudyState
    revision: int
    patient: str
    report: str | None  # SOP Instance UID of the newest
    shown: bool  # as ended, with findings
    instances: dict[str, str] = field(
        default_factory=dict
    )  # in use: SOP Instance UID → file in the store

    def covered(self, uid: str) -> bool:
        """Whether the newest report was made of all instances in use."""
        return self.report == expected_report(uid, tuple(sorted(self.instances)))


@lru_cache(maxsize=100_000)
def expected_report(study: str, inputs: tuple[str, ...]) -> str:
    provenance = Provenance(StubNetworks.identity, VERSION, Settings().results_sha256, inputs)
    return report_uid(study, provenance, OUTPUT)


def snapshot(database: Database) -> dict[str, StudyNow]:
    """Every study, in one statement."""
    newest = (
        select(ReportRow.sop_instance_uid)
        .where(ReportRow.study_id == Study.id)
        .order_by(ReportRow.id.desc())
        .limit(1)
        .correlate(Study)
        .scalar_subquery()
    )
    found = exists().where(FindingRow.study_id == Study.id, FindingRow.superseded.is_(False))
    question = (
        select(
            Study.study_instance_uid,
            Study.state,
            Study.revision,
            Patient.patient_identifier,
            newest,
            Study.ended_at.is_not(None) & found,
            Instance.sop_instance_uid,
            Instance.file,
        )
        .join(Patient, Patient.id == Study.patient_id)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, (Instance.series_id == Series.id) & Instance.quarantined.is_(None))
    )
    studies: dict[str, StudyNow] = {}
    with database.reading() as session:
        for uid, state, revision, patient, report, shown, instance, file in session.execute(
            question
        ):
            study = studies.setdefault(uid, StudyNow(state, revision, patient, report, bool(shown)))
            study.instances[instance] = file
    return studies


def ended(database: Database) -> int:
    """How many studies have ended."""
    with database.reading() as session:
        return session.scalar(select(func.count()).where(Study.ended_at.is_not(None))) or 0


def partial_in(studies: dict[str, StudyNow]) -> set[str]:
    """Studies that stand as ended though their report was made of other images than they have."""
    return {uid for uid, study in studies.items() if study.shown and not study.covered(uid)}


class Watch:
    """Looks for a partial study shown as final, from beginning to end of the block."""

    def __init__(self, system: System) -> None:
        self._url = system.database_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.partial: set[str] = set()
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with closing_database(self._url) as database:
            while not self._stop.wait(0.5):
                try:
                    self.partial |= partial_in(snapshot(database))
                    self.looks += 1
                except DatabaseUnavailable:
                    continue


def settle(system: System, acknowledged: Iterable[Sent], timeout_s: float) -> float:
    """Waits until every study sent has its report of all its images and no job is left; at most so long.

    Returns the seconds waited. What is still missing then, ``judge`` names.
    """
    studies = {sent.study for sent in acknowledged}
    clock = Clock()
    unfinished = select(func.count()).where(Job.state.in_((JobState.PENDING, JobState.RUNNING)))
    with closing_database(system.database_url) as database:
        while clock.s < timeout_s:
            now = snapshot(database)
            if all(uid in now and now[uid].shown and now[uid].covered(uid) for uid in studies):
                with database.reading() as session:
                    if not session.scalar(unfinished):
                        break
            time.sleep(0.5)
    return clock.s


def judge(
    system: System, acknowledged: Iterable[Sent], outcome: Outcome, pacs: Orthanc | None = None
) -> None:
    """Adds to the outcome what is lost, duplicated or partial, now that all has settled."""
    acknowledged = list(acknowledged)
    store = Store(system.home / "store")
    with closing_database(system.database_url) as database:
        now = snapshot(database)
        with database.reading() as session:
            rows = session.execute(
                select(Instance.sop_instance_uid)
                .where(Instance.quarantined.is_(None))
                .group_by(Instance.sop_instance_uid)
                .having(func.count() > 1)
            )
            outcome.duplicated |= set(rows.scalars())
    outcome.acknowledged += len(acknowledged)
    outcome.partial |= partial_in(now)
    for sent in acknowledged:
        study = now.get(sent.study)
        file = study.instances.get(sent.uid) if study else None
        if study is None or file is None or not _intact(store, file, sent):
            outcome.lost.add(sent.uid)
        elif not study.covered(sent.study) or study.state is not StudyState.ANALYSED:
            outcome.lost.add(f"report of {sent.study}")
        if study and study.patient != sent.patient:
            outcome.lost.add(f"{sent.uid} under another patient")
    if pacs:
        judge_pacs(system, {sent.study for sent in acknowledged}, outcome, reports_in(pacs))


def reports_in(pacs: Orthanc) -> list[tuple[str, str]]:
    """Study and SOP Instance UID of everything that the PACS holds."""
    return [
        (
            str(study["MainDicomTags"]["StudyInstanceUID"]),
            str(instance["MainDicomTags"]["SOPInstanceUID"]),
        )
        for study in pacs.rest("/studies?expand")
        for instance in pacs.rest(f"/studies/{study['ID']}/instances")
    ]


def judge_pacs(
    system: System, studies: set[str], outcome: Outcome, held: list[tuple[str, str]]
) -> None:
    """Every current report is there once, and nothing that the database does not know or that no inputs explain."""
    with closing_database(system.database_url) as database:
        now = snapshot(database)
        with database.reading() as session:
            known = set(session.scalars(select(ReportRow.sop_instance_uid)))
            delivered = set(
                session.scalars(
                    select(ReportRow.sop_instance_uid).join(
                        Delivery, Delivery.report_id == ReportRow.id
                    )
                )
            )
    ours = [(study, uid) for study, uid in held if study in studies]
    outcome.lost |= {
        f"report of {uid}" for uid in studies & set(now) if (uid, now[uid].report) not in ours
    }
    outcome.lost |= {f"{uid}, said to be delivered" for uid in delivered - {uid for _, uid in held}}
    outcome.duplicated |= {uid for _, uid in ours if uid not in known}
    outcome.duplicated |= {uid for (_, uid), count in Counter(ours).items() if count > 1}
    counted = Counter(study for study, _ in set(ours))
    outcome.duplicated |= {
        f"reports of {uid}" for uid, count in counted.items() if count > now[uid].revision
    }


def _intact(store: Store, file: str, sent: Sent) -> bool:
    try:
        return dataset_of(store.path(file)) == dataset_of(sent.file)
    except OSError:
        return False
