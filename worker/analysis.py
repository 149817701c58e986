"""The ANALYSE job: reads a stored study, writes findings, a stored report and its deliveries."""

import filecmp
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from db import job_lifecycle, reports, stated_attributes, studies
from db.context import SiteContext
from db.jobs import ClaimedJob
from db.leases import LeaseLostError
from db.models import Instance, ReportRow
from db.studies import StudyEvent
from lumbar import VERSION
from lumbar.dicom.discover import MRInstance
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.dicom.instance_identity import study_attributes
from lumbar.errors import NotAnalysable, NotDicom, Transient
from lumbar.log import get_logger
from lumbar.networks import Networks
from lumbar.reports.report import Draft, Predecessor
from lumbar.reports.sr import draft_sr
from lumbar.spine.provenance import Provenance
from lumbar.store.files import REPORTS
from lumbar.study_attributes import Disagreement, Stated, StudyAttributes, agreed, disagreements
from worker.pipeline import Analysis, analyse

log = get_logger()


class StoreUnavailable(Transient):
    """A stored file is missing or incomplete, at least for now."""


def analyse_study(site: SiteContext, networks: Networks, claimed: ClaimedJob) -> None:
    """Analyses a claimed study and writes its outcome.

    Raises:
        LeaseLostError: superseded meanwhile; nothing was written.
        Transient: the disk or the database failed.
    """
    left_out: tuple[str, ...] = ()
    try:
        study = _stored_study(site, claimed)
        left_out = study.left_out
        analysis = analyse(study.instances, networks)
        analysis.require_assessed()
    except NotAnalysable as error:
        with site.database.transaction() as session:
            job_lifecycle.end_analysis(
                session,
                claimed,
                StudyEvent.REFUSED,
                reason=str(error),
                notes=error.notes + left_out,
            )
        return
    analysis = replace(analysis, caveats=analysis.caveats + study.caveats)
    report = _stored_report(site, claimed, analysis, study, networks)
    with _removing_unless_kept(site, report), site.database.transaction() as session:
        job_lifecycle.end_analysis(
            session,
            claimed,
            StudyEvent.ANALYSED,
            findings=analysis.findings,
            notes=analysis.choices + study.notes,
            caveats=analysis.caveats,
            bundle=networks.identity,
            report=report,
            destinations=site.settings.destinations,
        )


@contextmanager
def _removing_unless_kept(site: SiteContext, report: ReportRow) -> Iterator[None]:
    """Removes a new report's file if its row is not written, as it names the patient.

    After any other error the row may have been written.

    Raises:
        LeaseLostError: as the block raised it.
    """
    is_new = report.id is None
    try:
        yield
    except LeaseLostError:
        if is_new and report.file is not None:
            with suppress(Transient):
                site.store.remove(report.file)
        raise


@dataclass(frozen=True)
class StoredStudy:
    """What a stored study is analysed from, and what its report states of patient and study."""

    instances: Sequence[MRInstance]
    digests: Sequence[str]  # of the instances' contents
    left_out: tuple[str, ...]  # notes on the images that cannot be read
    attributes: StudyAttributes
    disagreements: Sequence[Disagreement]

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.left_out, *(str(d) for d in self.disagreements if not d.identifies))

    @property
    def caveats(self) -> tuple[str, ...]:
        """Where the report may have been filed wrongly."""
        return tuple(f"images disagree: {d}" for d in self.disagreements if d.identifies)


def provenance_of(
    settings_sha256: str,
    networks: Networks,
    instances: Sequence[MRInstance],
    digests: Iterable[str],
    attributes: StudyAttributes,
) -> Provenance:
    """Everything that determines the result and its report. ``digests``: of the contents."""
    return Provenance(
        bundle=networks.identity,
        code_version=VERSION,
        settings_sha256=settings_sha256,
        input_sop_instance_uids=tuple(sorted({i.slices[0].sop_instance_uid for i in instances})),
        inputs_sha256=inputs_sha256(digests, attributes),
    )


def inputs_sha256(digests: Iterable[str], attributes: StudyAttributes) -> str:
    """SHA-256 of the images' contents, and of what the report states of patient and study."""
    inputs = [*sorted(set(digests)), *astuple(attributes)]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def draft_report(
    analysis: Analysis,
    instances: Sequence[MRInstance],
    provenance: Provenance,
    attributes: StudyAttributes,
) -> Draft:
    """The Structured Report of an analysis; ``why_no_report`` has found no obstacle."""
    used = {finding.point.sop_instance_uid for finding in analysis.findings if finding.point}
    by_uid = {i.slices[0].sop_instance_uid: i.header for i in instances}  # a copied file once
    sources = [by_uid[uid] for uid in sorted(used)] or [instances[0].header]
    return draft_sr(
        sources,
        analysis.findings,
        provenance,
        caveats=analysis.caveats,
        study=attributes.as_dataset(),
    )


def why_no_report(instances: Sequence[MRInstance]) -> str | None:
    """Why no report can refer to images given by hand; None if one can.

    Stored instances have unique UIDs. A file that is there twice is one instance.
    """
    if any(instance.made_up for instance in instances):
        return "images without UIDs cannot be referred to"
    first: dict[str, MRInstance] = {}
    for instance in instances:
        other = first.setdefault(instance.slices[0].sop_instance_uid, instance)
        if other is not instance and not filecmp.cmp(other.path, instance.path, shallow=False):
            return "SOP Instance UIDs repeat, so its references would be ambiguous"
    return None


def stated_by(instances: Sequence[MRInstance]) -> Stated:
    """What images state of patient and study, and by how many."""
    return list(Counter(study_attributes(i.header) for i in instances).items())


def _stored_study(site: SiteContext, claimed: ClaimedJob) -> StoredStudy:
    """The study's readable instances, and notes on those that are left out.

    An instance is left out if it cannot be read as an image with a position.

    Raises:
        NotAnalysable: retention has removed images, or none can be read.
    """
    with site.database.reading() as session:
        rows = studies.images_in_use(session, claimed.study_id)
        stated = stated_attributes.in_use(session, claimed.study_id)
    if removed := sum(row.removed_at is not None for row in rows):
        raise NotAnalysable(
            f"{removed} of its {len(rows)} images were removed to make room; send the study again"
        )
    instances, digests, reasons = list[MRInstance](), list[str](), list[str]()
    for row in rows:
        try:
            instances.append(_instance(site, row))
            digests.append(row.sha256)
        except NotDicom as error:
            reasons.append(str(error))
    if not instances:
        why = reasons[0] if reasons else "nothing was received"
        raise NotAnalysable(
            f"none of the study's {len(rows)} instances can be read: {why}", _left_out(reasons)
        )
    if reasons:
        why_left_out = sorted(set(reasons))
        log.warning(
            "analysis.left_out", study=claimed.study_id, instances=len(reasons), why=why_left_out
        )
    # what rows of earlier versions do not hold is in the headers
    attributes = agreed(stated).filled_from(agreed(stated_by(instances)))
    return StoredStudy(instances, digests, _left_out(reasons), attributes, disagreements(stated))


def _instance(site: SiteContext, row: Instance) -> MRInstance:
    path = site.store.path(row.file)
    _require_stored(path, row.size)
    header = read_header(path)
    return MRInstance(path, header, tuple(slice_headers(header)))


def _left_out(reasons: Sequence[str]) -> tuple[str, ...]:
    """One note per reason: how many images it left out."""
    counts = sorted(Counter(reasons).items())
    return tuple(
        f"{count} {'image' if count == 1 else 'images'} left out: {why}" for why, count in counts
    )


def _require_stored(path: Path, size: int) -> None:
    """Requires that a stored file is there: an unmounted store is not a study without images.

    Raises:
        StoreUnavailable: the file is missing or has another size.
    """
    try:
        stored = path.stat().st_size
    except OSError as error:
        raise StoreUnavailable(
            f"a stored image cannot be read ({error.strerror}); is the store mounted?"
        ) from error
    if stored != size:
        raise StoreUnavailable(
            f"a stored image has {stored} bytes and was stored with {size}; restore it from a copy"
        )


def _stored_report(
    site: SiteContext,
    claimed: ClaimedJob,
    analysis: Analysis,
    study: StoredStudy,
    networks: Networks,
) -> ReportRow:
    """The report's row; its bytes are stored before anything is sent.

    An analysis that has nothing else to say than the newest report reuses that.
    """
    provenance = provenance_of(
        site.settings.results_sha256, networks, study.instances, study.digests, study.attributes
    )
    draft = draft_report(analysis, study.instances, provenance, study.attributes)
    with site.database.reading() as session:
        newest = reports.newest_report(session, claimed.study_id)
        current = reports.current_reports(session, claimed.study_id)
        history = reports.History.of(session, claimed.study_id)
        number = reports.next_number(session, claimed.study_id)
    if newest is not None:
        replaced = {newest.id, *history.replaced_by(newest.id)}
        if {row.id for row in current} <= replaced and _is_stored(site, newest, draft):
            return newest
    created = datetime.now(UTC)
    predecessors = list(map(_predecessor, current))
    report = draft.finish(created, site.settings.zone, number=number, predecessors=predecessors)
    return ReportRow(
        study_id=claimed.study_id,
        revision=claimed.revision,
        sop_class_uid=report.sop_class_uid,
        sop_instance_uid=report.sop_instance_uid,
        series_instance_uid=report.series_instance_uid,
        number=number,
        content_sha256=draft.sha256,
        inputs_sha256=provenance.inputs_sha256,
        predecessor_ids=[row.id for row in current],
        created_at=created,
        sha256=report.sha256,
        file=site.store.put(REPORTS, report.sha256, report.content),
    )


def _is_stored(site: SiteContext, row: ReportRow, draft: Draft) -> bool:
    """Whether a report says the same, and its file is there or could be made again."""
    if row.content_sha256 != draft.sha256 or row.file is None:
        return False
    if site.store.is_intact(row.file, row.sha256 or ""):
        return True
    with site.database.reading() as session:
        predecessors = list(map(_predecessor, reports.predecessors_of(session, row)))
    report = draft.finish(
        row.created_at, site.settings.zone, number=row.number, predecessors=predecessors
    )
    if report.sha256 != row.sha256:  # by another version, or in another time zone
        return False
    site.store.remove(row.file)
    site.store.put(REPORTS, report.sha256, report.content)
    return True


def _predecessor(row: ReportRow) -> Predecessor:
    return Predecessor(row.series_instance_uid, row.sop_class_uid, row.sop_instance_uid)
