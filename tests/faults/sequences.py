"""Sends, resends, corrections, rejections, releases and drops in any order, from three sources.

Whatever the order, no finding is in force under a patient whose images it was not read from, no
image is lost, and every quarantined one is listed with its reason.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from pydicom.uid import SecondaryCaptureImageStorage
from sqlalchemy import select
from structlog.testing import capture_logs

from db import corrections, job_lifecycle, quarantine, schema, studies
from db.audit import Participant
from db.context import SiteContext
from db.ingest import ingest
from db.jobs import ClaimedJob
from db.leases import LeaseLostError
from db.models import FindingRow, Instance, Series, Study, StudyState
from db.stated_attributes import by_id
from db.stored_instances import IngestResult, TrustedSources
from db.studies import StudyEvent
from lumbar.errors import NotFound, Permanent
from lumbar.settings import Settings
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.findings import Finding
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.objects import make_note, make_object
from tests.faults.outcome import Environment, Outcome
from tests.stub_networks import StubNetworks

FAULT = "sequences"
FULL_ROUNDS = 1000
STEPS = 14  # per sequence
IMAGES = (1, 2, 3)
SOURCES = ("MR1", "PACS", "OTHER")
TRUSTED = TrustedSources(frozenset({"PACS"}), frozenset({"PACS"}))
PATIENTS = {
    "A": {"PatientName": "Ann^A", "AccessionNumber": "1"},
    "B": {"PatientName": "Bob^B", "AccessionNumber": "1"},
}
TITLES = ("113001", "113037", "113038", "113039")


@dataclass
class Sequence:
    """One study and what is done to it. ``failures`` says what went wrong."""

    site: SiteContext
    number: int  # of the study
    rng: random.Random
    kept: set[tuple[str, str]] = field(default_factory=set)  # SOP Instance UID, digest
    patients_read: dict[int, set[str]] = field(default_factory=dict)  # by revision
    running: ClaimedJob | None = None
    failures: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    def run(self) -> None:
        steps: list[Callable[[], str]] = [
            *[self.send] * 4,
            *[self.resend_all] * 4,
            *[self.analyse] * 2,
            self.send_object,
            self.reject,
            self.correct,
            self.release,
            self.drop,
            self.begin_analysis,
            self.end_analysis,
        ]
        self.send()
        for _ in range(STEPS):
            self.done.append(self.rng.choice(steps)())
            self.check()
        self.begin_analysis()
        self.end_analysis()
        self.check()

    def send(self) -> str:
        return self._send(self.rng.choice(IMAGES), self.rng.choice("AAB"), self._source())

    def resend_all(self) -> str:
        patient, source = self.rng.choice("AB"), self._source()
        return "; ".join(self._send(image, patient, source) for image in IMAGES)

    def _send(self, image: int, patient: str, source: str) -> str:
        fill = 90 + image if self.rng.random() < 0.08 else image
        accession = self.rng.choice(("1",) * 14 + ("", "2"))
        elements = self._elements(patient) | {"AccessionNumber": accession}
        cut = self.rng.random() < 0.05
        dataset = make_slice(self.number, 1, image, fill=fill, **elements)
        if cut:
            dataset.PixelData = dataset.PixelData[:-40]
        result = self._ingest(dataset, source)
        return f"{source} sends {image} of {patient} ({fill}, {accession or '-'}, {cut}): {result}"

    def send_object(self) -> str:
        patient, source = self.rng.choice("AB"), self._source()
        dataset = make_object(
            SecondaryCaptureImageStorage, 1, self.number, **self._elements(patient)
        )
        return f"{source} sends an object of {patient}: {self._ingest(dataset, source)}"

    def reject(self) -> str:
        patient, source = self.rng.choice("AAB"), self._source()
        title, images = self.rng.choice(TITLES), self.rng.sample(IMAGES, self.rng.randint(1, 3))
        named = [make_slice(self.number, 1, image) for image in images]
        number = 2 + self.rng.randrange(3)
        note = make_note(title, named, number, **self._elements(patient))
        return f"{source} rejects {images} of {patient} ({title}): {self._ingest(note, source)}"

    def correct(self) -> str:
        try:
            with self.site.database.transaction() as session:
                corrections.correct(session, self._study(session), Participant("operator"))
        except Permanent as error:
            return f"correct: {error}"
        return "correct"

    def release(self) -> str:
        return self._on_quarantined("release", quarantine.release)

    def drop(self) -> str:
        return self._on_quarantined("drop", quarantine.drop)

    def _on_quarantined(self, name: str, action: Callable[[SiteContext, str, str], None]) -> str:
        listed = quarantine.list_quarantined(self.site, f"{ROOT}.{self.number}")
        if not listed:
            return f"{name}: nothing"
        chosen = self.rng.choice(listed)
        with self.site.database.reading() as session:
            row = session.get_one(Instance, int(chosen.id.partition("-")[0]))
        try:
            action(self.site, chosen.id, Participant("operator"))
        except (Permanent, NotFound) as error:
            return f"{name} {row.sop_instance_uid}: {error}"
        if name == "drop":
            self.kept.discard((row.sop_instance_uid, row.sha256))
        return f"{name} {row.sop_instance_uid} ({row.quarantined})"

    def analyse(self) -> str:
        return f"{self.begin_analysis()}; {self.end_analysis()}"

    def begin_analysis(self) -> str:
        if self.running is not None:
            return "an analysis is running"
        with self.site.database.transaction() as session:
            studies.complete(session, self._study(session).id)
            self.running = job_lifecycle.claim_analysis(session, lease_s=600)
        if self.running is None:
            return "nothing to analyse"
        with self.site.database.reading() as session:
            rows = studies.images_in_use(session, self.running.study_id)
            stated = by_id(session, self.running.study_id)
        revision = self.running.revision
        self.patients_read[revision] = {stated[r.attributes_id].patient_identifier for r in rows}
        return f"begin to analyse revision {revision}"

    def end_analysis(self) -> str:
        job, self.running = self.running, None
        if job is None:
            return "no analysis is running"
        findings = [Finding(*key.parts, reason="a stub") for key in ALL_FINDINGS]
        try:
            with self.site.database.transaction() as session:
                job_lifecycle.end_analysis(
                    session,
                    job,
                    StudyEvent.ANALYSED,
                    findings=findings,
                    bundle=StubNetworks.identity,
                )
        except LeaseLostError:
            return "the analysis was superseded"
        return f"end the analysis of revision {job.revision}"

    def check(self) -> None:
        """What holds after every step."""
        with self.site.database.reading() as session:
            study, stated = self._study(session), by_id(session, self._study(session).id)
            rows = session.scalars(
                select(Instance).join(Series).where(Series.study_id == study.id)
            ).all()
            revisions = set(
                session.scalars(
                    select(FindingRow.revision).where(
                        FindingRow.study_id == study.id, FindingRow.superseded.is_(False)
                    )
                )
            )
        patient = study.patient.patient_identifier
        in_use = [row for row in rows if row.quarantined is None]
        for row in in_use:
            if stated[row.attributes_id].patient_identifier != patient:
                self.fail(f"{row.sop_instance_uid} is in use under another patient")
        for revision in revisions:
            if self.patients_read[revision] != {patient}:
                self.fail(f"findings of revision {revision} are not {patient}'s")
        known = {(row.sop_instance_uid, row.sha256) for row in rows}
        if not self.kept <= known:
            self.fail("an image has no row")
        if not all(self.site.store.path(row.file).exists() for row in rows):
            self.fail("an image has no file")
        listed = quarantine.list_quarantined(self.site, f"{ROOT}.{self.number}")
        reasons = {row.id.partition("-")[0]: row.reason for row in listed}
        if reasons != {str(row.id): row.quarantined for row in rows if row.quarantined}:
            self.fail("a quarantined instance is not listed with its reason")
        if study.state is StudyState.NO_IMAGES and any(row.is_image for row in in_use):
            self.fail("a study with images in use counts as one without")

    def fail(self, why: str) -> None:
        self.failures.add(f"sequence {self.number}: {why}, after {self.done}")

    def _ingest(self, dataset, source: str) -> IngestResult:
        sent = arrival(dataset, source)
        before = self._contents(dataset.SOPInstanceUID)
        result = ingest(self.site.database, self.site.store, sent, TRUSTED)
        after = self._contents(dataset.SOPInstanceUID)
        if not before.keys() <= after.keys():
            self.fail("an image was lost")
        if result is not IngestResult.SAME_IMAGE and not after:
            self.fail("an acknowledged image was not kept")
        if result is IngestResult.SAME_IMAGE and None not in after.values():
            self.fail("a copy was not kept though no other is in use")
        self.kept |= after.keys()
        return result

    def _contents(self, uid: str) -> dict[tuple[str, str], str | None]:
        """What is kept under a SOP Instance UID: by UID and digest, why it is not used."""
        with self.site.database.reading() as session:
            rows = session.scalars(select(Instance).where(Instance.sop_instance_uid == uid)).all()
        return {(row.sop_instance_uid, row.sha256): row.quarantined for row in rows}

    def _elements(self, patient: str) -> dict[str, str]:
        return PATIENTS[patient] | {"PatientID": f"{patient}{self.number}"}

    def _source(self) -> str:
        return self.rng.choice(SOURCES)

    def _study(self, session) -> Study:
        return studies.find(session, f"{ROOT}.{self.number}")


def run(environment: Environment, rounds: int) -> Outcome:
    rng, outcome = environment.rng(FAULT), Outcome(FAULT, rounds)
    home = environment.folder(FAULT)
    settings = Settings(home=home)
    site = SiteContext.unchecked(settings)
    schema.upgrade(site.database)
    site.prepare_store()
    for number in range(1, rounds + 1):
        sequence = Sequence(site, number, random.Random(rng.random()))
        with capture_logs():  # too many to read
            sequence.run()
        outcome.acknowledged += len(sequence.kept)
        outcome.lost |= sequence.failures
        if number % 50 == 0:
            environment.progress(f"{FAULT} {number}/{rounds}")
    site.database.close()
    return outcome
