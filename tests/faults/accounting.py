"""Accounting: what was acknowledged, compared with the database, the store and the PACS."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import exists, func, select
from sqlalchemy.orm import aliased

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
    StatedAttributes,
    Study,
    StudyState,
)
from db.stated_attributes import attributes_of
from lumbar.store.files import Store
from lumbar.study_attributes import StudyAttributes, agreed
from tests.faults.outcome import Outcome, Stopwatch
from tests.faults.sending import SentInstance, dataset_of
from tests.peers import Orthanc
from tests.system import System, closing_database
from worker.analysis import inputs_sha256


@dataclass
class StudySnapshot:
    """A study in one snapshot of the database."""

    state: StudyState
    revision: int
    patient: str
    report: str | None  # SOP Instance UID of the newest
    inputs: str | None  # that it was made from
    shown: bool  # as ended, with findings
    # In use: SOP Instance UID → file in the store.
    instances: dict[str, str] = field(default_factory=dict)
    attributes: Counter[StudyAttributes] = field(default_factory=Counter)

    @property
    def covered(self) -> bool:
        """Whether the newest report was made from all instances in use."""
        attributes = agreed(list(self.attributes.items()))
        files = tuple(sorted(self.instances.values()))
        return self.inputs == expected_inputs(files, attributes)


@lru_cache(maxsize=100_000)
def expected_inputs(files: tuple[str, ...], attributes: StudyAttributes) -> str:
    """What a report of these files, which are named by their contents, states as its inputs."""
    return inputs_sha256([Path(file).stem for file in files], attributes)


def snapshot(database: Database) -> dict[str, StudySnapshot]:
    """Every study, read in one statement."""
    other = aliased(ReportRow)
    newest = (
        select(func.max(other.id))
        .where(other.study_id == Study.id)
        .correlate(Study)
        .scalar_subquery()
    )
    has_findings = exists().where(FindingRow.study_id == Study.id, FindingRow.superseded.is_(False))
    statement = (
        select(
            Study.study_instance_uid,
            Study.state,
            Study.revision,
            Patient.patient_identifier,
            ReportRow.sop_instance_uid,
            ReportRow.inputs_sha256,
            Study.ended_at.is_not(None) & has_findings,
            Instance.sop_instance_uid,
            Instance.file,
            StatedAttributes,
        )
        .join(Patient, Patient.id == Study.patient_id)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, (Instance.series_id == Series.id) & Instance.quarantined.is_(None))
        .join(StatedAttributes, StatedAttributes.id == Instance.attributes_id)
        .outerjoin(ReportRow, ReportRow.id == newest)
    )
    studies: dict[str, StudySnapshot] = {}
    with database.reading() as session:
        for row in session.execute(statement):
            uid, state, revision, patient, report, inputs, shown, instance, file, stated = row
            study = studies.setdefault(
                uid, StudySnapshot(state, revision, patient, report, inputs, bool(shown))
            )
            study.instances[instance] = file
            study.attributes[attributes_of(stated)] += 1
    return studies


def ended(database: Database) -> int:
    """How many studies have ended."""
    with database.reading() as session:
        return session.scalar(select(func.count()).where(Study.ended_at.is_not(None))) or 0


def partial_in(studies: dict[str, StudySnapshot]) -> set[str]:
    """Studies shown as ended although their report was made from other images than they have."""
    return {uid for uid, study in studies.items() if study.shown and not study.covered}


class PartialResultWatch:
    """A context manager that looks for partial studies shown as final while it is entered."""

    def __init__(self, system: System) -> None:
        self._url = system.database_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.partial: set[str] = set()
        self.checks = 0

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
                    self.checks += 1
                except DatabaseUnavailable:
                    continue


def wait_until_settled(
    system: System, acknowledged: Iterable[SentInstance], timeout_s: float
) -> float:
    """Waits until every study sent has a report of all its images and no job is unfinished.

    Returns the seconds waited, at most ``timeout_s``. ``check_outcome`` reports what is still
    missing then.
    """
    studies = {sent.study for sent in acknowledged}
    stopwatch = Stopwatch()
    unfinished = select(func.count()).where(Job.state.in_((JobState.PENDING, JobState.RUNNING)))
    with closing_database(system.database_url) as database:
        while stopwatch.s < timeout_s:
            waits = Store(system.home / "store").unregistered()
            now = snapshot(database)
            if not waits and all(
                uid in now and now[uid].shown and now[uid].covered for uid in studies
            ):
                with database.reading() as session:
                    if not session.scalar(unfinished):
                        break
            time.sleep(0.5)
    return stopwatch.s


def check_outcome(
    system: System,
    acknowledged: Iterable[SentInstance],
    outcome: Outcome,
    pacs: Orthanc | None = None,
) -> None:
    """Adds to the outcome what is lost, duplicated or partial, once everything has settled."""
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
        elif not study.covered or study.state is not StudyState.ANALYSED:
            outcome.lost.add(f"report of {sent.study}")
        if study and study.patient != sent.patient:
            outcome.lost.add(f"{sent.uid} under another patient")
    if pacs:
        check_pacs(system, {sent.study for sent in acknowledged}, outcome, reports_in(pacs))


def reports_in(pacs: Orthanc) -> list[tuple[str, str]]:
    """Study and SOP Instance UID of every instance in the PACS."""
    return [
        (
            str(study["MainDicomTags"]["StudyInstanceUID"]),
            str(instance["MainDicomTags"]["SOPInstanceUID"]),
        )
        for study in pacs.rest("/studies?expand")
        for instance in pacs.rest(f"/studies/{study['ID']}/instances")
    ]


def check_pacs(
    system: System, studies: set[str], outcome: Outcome, in_pacs: list[tuple[str, str]]
) -> None:
    """Checks that every current report is there once, and nothing else of these studies.

    A report that the database does not know, or more reports than a study has had revisions, counts
    as duplicated.
    """
    with closing_database(system.database_url) as database:
        now = snapshot(database)
        with database.reading() as session:
            known_reports = set(session.scalars(select(ReportRow.sop_instance_uid)))
            delivered = set(
                session.scalars(
                    select(ReportRow.sop_instance_uid).join(
                        Delivery, Delivery.report_id == ReportRow.id
                    )
                )
            )
    of_studies = [(study, uid) for study, uid in in_pacs if study in studies]
    outcome.lost |= {
        f"report of {uid}" for uid in studies & set(now) if (uid, now[uid].report) not in of_studies
    }
    outcome.lost |= {
        f"{uid}, recorded as delivered" for uid in delivered - {uid for _, uid in in_pacs}
    }
    outcome.duplicated |= {uid for _, uid in of_studies if uid not in known_reports}
    outcome.duplicated |= {uid for (_, uid), count in Counter(of_studies).items() if count > 1}
    reports = Counter(study for study, _ in set(of_studies))
    outcome.duplicated |= {
        f"reports of {uid}" for uid, count in reports.items() if count > now[uid].revision
    }


def _intact(store: Store, file: str, sent: SentInstance) -> bool:
    try:
        return dataset_of(store.path(file)) == dataset_of(sent.file)
    except OSError:
        return False
