"""A state machine of studies and jobs: any events in any order.

No study is left without a job or an end, and none is shown as analysed that is not.
"""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select, update

from db import (
    clock_corrections,
    expiry,
    job_lifecycle,
    jobs,
    operating_time,
    operator_actions,
    retention,
    reviews,
    studies,
)
from db.audit import Participant
from db.context import SiteContext
from db.database import Database
from db.ingest import ingest
from db.instance_rows import IngestResult
from db.jobs import ClaimedJob
from db.leases import Backoff, LeaseLostError
from db.models import (
    FindingRow,
    Instance,
    Job,
    JobState,
    ReadingState,
    Series,
    Study,
    StudyState,
)
from db.studies import ENDED, StudyEvent
from db.types import db_now
from lumbar.errors import Permanent
from lumbar.settings import Settings
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.store.files import Store
from tests.databases import sqlite_database
from tests.factories.ages import pass_days
from tests.factories.instances import ROOT, arrival, make_slice

BUNDLE = BundleIdentity("stub", "1", "0" * 64, TrainedOn.NOTHING, "1")
NOT_ASSESSED = [Finding(*key.parts, reason="a stub") for key in ALL_FINDINGS]
LEASE_S = 1000.0
AT_WORK = {StudyState.QUEUED: JobState.PENDING, StudyState.ANALYSING: JobState.RUNNING}

study_numbers = st.integers(1, 2)


class Machine(RuleBasedStateMachine):
    """Two studies, a few images, and an operator.

    Workers end their jobs, fail, are lost and come back late.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lumbar-machine-"))
        self.acknowledged: dict[str, int] = {}  # SOP Instance UID → number of its study
        self.patients: dict[int, str] = {}  # number of a study → its patient
        self.workers: list[
            tuple[ClaimedJob, frozenset[str]]
        ] = []  # the claim of each, and the images it read
        self.read: dict[int, frozenset[str]] = {}  # study → the images its last good analysis read

    @initialize()
    def open_site(self) -> None:
        database = Database.connect(sqlite_database(self.folder / "lumbar.sqlite"))
        self.site = SiteContext(
            Settings(home=self.folder, worklist_days=1, keep_at_least_hours=2),
            database,
            Store(self.folder / "store").create(),
        )

    def teardown(self) -> None:
        db_now.turned_s = 0
        if hasattr(self, "site"):
            self.site.database.close()
        shutil.rmtree(self.folder)

    @rule(
        study=study_numbers,
        number=st.integers(1, 3),
        other_bytes=st.booleans(),
        other_patient=st.booleans(),
    )
    def an_image_arrives(
        self, study: int, number: int, other_bytes: bool, other_patient: bool
    ) -> None:
        elements: dict[str, object] = {"EchoTime": 99} if other_bytes else {}
        if other_patient:
            elements["PatientID"] = "ANOTHER"
        ds = make_slice(study=study, number=number, **elements)
        outcome = ingest(self.site.database, self.site.store, arrival(ds))
        if outcome is IngestResult.NEW:
            assert self.patients.setdefault(study, ds.PatientID) == ds.PatientID
            assert ds.SOPInstanceUID not in self.acknowledged
            self.acknowledged[ds.SOPInstanceUID] = study

    @rule(study=study_numbers)
    def it_is_complete(self, study: int) -> None:
        with self.site.database.transaction() as session:
            if (study_id := self.id_of(session, study)) is not None:
                studies.complete(session, study_id)

    @rule()
    def a_worker_claims(self) -> None:
        with self.site.database.transaction() as session:
            claimed = job_lifecycle.claim_analysis(session, lease_s=LEASE_S)
            if claimed is not None:
                images = {
                    row.sop_instance_uid for row in studies.images_in_use(session, claimed.study_id)
                }
                self.workers.append((claimed, frozenset(images)))

    @rule(data=st.data(), event=st.sampled_from([StudyEvent.ANALYSED, StudyEvent.REFUSED]))
    def a_worker_ends(self, data: st.DataObject, event: StudyEvent) -> None:
        if not self.workers:
            return
        claimed, images = self.workers.pop(data.draw(st.integers(0, len(self.workers) - 1)))
        findings = NOT_ASSESSED if event is StudyEvent.ANALYSED else []
        with suppress(LeaseLostError), self.site.database.transaction() as session:
            job_lifecycle.end_analysis(
                session, claimed, event, reason="a stub", findings=findings, bundle=BUNDLE
            )
            self.read[claimed.study_id] = images

    @rule(data=st.data())
    def a_worker_fails(self, data: st.DataObject) -> None:
        if self.workers:
            claimed, _ = self.workers.pop(data.draw(st.integers(0, len(self.workers) - 1)))
            with self.site.database.transaction() as session:
                job_lifecycle.release(
                    session, claimed, "it failed", Backoff(attempts=2, base_s=1e-6, max_s=1e-6)
                )

    @rule()
    def every_lease_runs_out(self) -> None:
        """The workers are not notified and will try to end their jobs."""
        with self.site.database.transaction() as session:
            session.execute(
                update(Job)
                .where(Job.state == JobState.RUNNING)
                .values(lease_expires_at=jobs.db_now(-1))
            )
            for expired in job_lifecycle.expired(session):
                job_lifecycle.recover(session, expired, max_losses=3)

    @rule(study=study_numbers)
    def an_operator_requeues(self, study: int) -> None:
        with suppress(Permanent), self.site.database.transaction() as session:
            if (study_id := self.id_of(session, study)) is not None:
                studies.requeue(session, study_id)

    @rule(data=st.data(), action=st.sampled_from([operator_actions.retry, operator_actions.cancel]))
    def an_operator_acts_on_a_job(self, data: st.DataObject, action: object) -> None:
        with suppress(Permanent), self.site.database.transaction() as session:
            if job_ids := session.scalars(select(Job.id).order_by(Job.id)).all():
                action(session, data.draw(st.sampled_from(job_ids[-2:])), Participant("a test"))  # type: ignore[operator]

    @rule(study=study_numbers, is_read=st.booleans())
    def somebody_marks_a_study(self, study: int, is_read: bool) -> None:
        with self.site.database.transaction() as session:
            if (study_id := self.id_of(session, study)) is not None:
                row = session.get_one(Study, study_id)
                reviews.mark_read(session, row, Participant("anna"), read=is_read)

    @rule(days=st.sampled_from([0.04, 0.1, 1.1]))
    def days_pass(self, days: float) -> None:
        pass_days(self.site.database, days)

    @rule(hours=st.integers(-1000, 1000))
    def the_clock_is_turned(self, hours: int) -> None:
        db_now.turned_s = 3600 * hours
        clock_corrections.correct_times(self.site)

    @rule()
    def maintenance_comes_by(self) -> None:
        operating_time.count(self.site.database)
        before = self.on_the_list()
        expiry.expire_unread(self.site)
        with self.site.database.reading() as session:
            for study_id in before - self.on_the_list():
                study = session.get_one(Study, study_id)
                now = operating_time.read(session)
                assert study.state in ENDED
                assert study.result_s is not None
                assert now - study.result_s >= operating_time.DAY_S
        self.retention_comes_by()

    @rule()
    def retention_comes_by(self) -> None:
        with self.site.database.reading() as session:
            rows = session.scalars(select(Study)).all()
            now = operating_time.read(session)
        for study in rows:
            removed = retention.remove(self.site, study.id, "a test")
            may_go = study.reading is not ReadingState.WAITING and study.state in ENDED
            assert not removed or (may_go and now - study.kept_from_s >= 2 * operating_time.HOUR_S)

    def on_the_list(self) -> set[int]:
        with self.site.database.reading() as session:
            return {
                study.id
                for study in session.scalars(select(Study))
                if study.reading is ReadingState.WAITING
            }

    @invariant()
    def nothing_acknowledged_is_lost_or_mixed(self) -> None:
        with self.site.database.reading() as session:
            rows = session.execute(
                select(Instance, Study.study_instance_uid)
                .select_from(Instance)
                .join(Series)
                .join(Study)
            ).all()
        used = {row.sop_instance_uid: uid for row, uid in rows if row.quarantined is None}
        assert used == {uid: f"{ROOT}.{study}" for uid, study in self.acknowledged.items()}
        assert len(used) == sum(row.quarantined is None for row, _ in rows)
        assert all(
            self.site.store.path(row.file).exists() == (row.removed_at is None) for row, _ in rows
        )

    @invariant()
    def no_study_is_silent(self) -> None:
        """A study that is not receiving has one analysis, pending or running, or has ended."""
        with self.site.database.reading() as session:
            for study in session.scalars(select(Study)):
                open_jobs = [
                    (job.state, job.revision)
                    for job in session.scalars(select(Job).where(Job.study_id == study.id))
                    if job.state in (JobState.PENDING, JobState.RUNNING)
                ]
                expected = {
                    StudyState.QUEUED: JobState.PENDING,
                    StudyState.ANALYSING: JobState.RUNNING,
                }.get(study.state)
                assert open_jobs == ([(expected, study.revision)] if expected else []), study.state
                assert (study.ended_at is not None) == (study.state in ENDED)
                assert (study.result_s is not None) == (study.state in ENDED)
                assert study.reason or study.state not in (
                    StudyState.NOT_ANALYSABLE,
                    StudyState.FAILED,
                )

    @invariant()
    def what_is_shown_as_read_was_read_whole(self) -> None:
        with self.site.database.reading() as session:
            for study in session.scalars(select(Study).where(Study.state.in_(ENDED))):
                current = session.scalars(
                    select(FindingRow.revision).where(
                        FindingRow.study_id == study.id, FindingRow.superseded.is_(False)
                    )
                ).all()
                if study.state is not StudyState.ANALYSED:
                    assert not current
                    continue
                assert current == [study.revision] * len(ALL_FINDINGS)
                in_use = {row.sop_instance_uid for row in studies.images_in_use(session, study.id)}
                assert self.read[study.id] == in_use

    @staticmethod
    def id_of(session: object, number: int) -> int | None:
        uid = f"{ROOT}.{number}"
        return session.scalar(select(Study.id).where(Study.study_instance_uid == uid))  # type: ignore[attr-defined,no-any-return]


TestMachine = pytest.mark.no_cover(pytest.mark.slow(Machine.TestCase))
TestMachine.settings = (
    settings(  # a walk that fails is shown as it was: to shorten one takes minutes
        max_examples=40, stateful_step_count=40, deadline=None, phases=[Phase.reuse, Phase.generate]
    )
)
