"""The ANALYSE job: reads a stored study, writes findings, a stored report and its deliveries."""

import filecmp
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from db import job_lifecycle, studies
from db.context import SiteContext
from db.jobs import ClaimedJob
from db.models import Instance, ReportRow
from db.studies import StudyEvent
from lumbar import VERSION
from lumbar.dicom.discover import MRInstance
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.errors import NotAnalysable, NotDicom, Transient
from lumbar.log import get_logger
from lumbar.networks import Networks
from lumbar.reports.report import Predecessor, Report
from lumbar.reports.report_uids import report_uid
from lumbar.reports.sr import OUTPUT, build_sr
from lumbar.spine.provenance import Provenance
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
        instances, left_out = _instances(site, claimed)
        analysis = analyse(instances, networks)
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
    report = _stored_report(site, claimed, analysis, instances, networks)
    with site.database.transaction() as session:
        job_lifecycle.end_analysis(
            session,
            claimed,
            StudyEvent.ANALYSED,
            findings=analysis.findings,
            notes=analysis.choices + left_out,
            caveats=analysis.caveats,
            bundle=networks.identity,
            report=report,
            destinations=site.settings.destinations,
        )


def provenance_of(
    settings_sha256: str, networks: Networks, instances: Sequence[MRInstance]
) -> Provenance:
    """Everything that determines the result."""
    return Provenance(
        bundle=networks.identity,
        code_version=VERSION,
        settings_sha256=settings_sha256,
        input_sop_instance_uids=tuple(sorted({i.slices[0].sop_instance_uid for i in instances})),
    )


def report_of(
    analysis: Analysis,
    instances: Sequence[MRInstance],
    provenance: Provenance,
    predecessor: Predecessor | None = None,
) -> Report:
    """The Structured Report of an analysis, dated now; ``why_no_report`` has found no obstacle."""
    used = {finding.point.sop_instance_uid for finding in analysis.findings if finding.point}
    by_uid = {i.slices[0].sop_instance_uid: i.header for i in instances}  # a copied file once
    sources = [by_uid[uid] for uid in sorted(used)] or [instances[0].header]
    return build_sr(
        sources,
        analysis.findings,
        provenance,
        caveats=analysis.caveats,
        created=datetime.now(UTC).astimezone(),
        predecessor=predecessor,
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


def _instances(site: SiteContext, claimed: ClaimedJob) -> tuple[list[MRInstance], tuple[str, ...]]:
    """The study's readable instances, and notes on those that are left out.

    An instance is left out if it cannot be read as an image with a position.

    Raises:
        NotAnalysable: retention has removed images, or none can be read.
    """
    with site.database.reading() as session:
        rows = studies.instances_in_use(session, claimed.study_id)
    if removed := sum(row.removed_at is not None for row in rows):
        raise NotAnalysable(
            f"{removed} of its {len(rows)} images were removed to make room; send the study again"
        )
    instances, reasons = [], []
    for row in rows:
        try:
            instances.append(_instance(site, row))
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
    return instances, _left_out(reasons)


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
    instances: Sequence[MRInstance],
    networks: Networks,
) -> ReportRow:
    """The report's row; its bytes are stored before anything is sent.

    An analysis that would get the same UID as a stored report reuses that report.
    """
    provenance = provenance_of(site.settings.results_sha256, networks, instances)
    sop_instance_uid = report_uid(analysis.study_instance_uid, provenance, OUTPUT)
    with site.database.reading() as session:
        stored = job_lifecycle.stored_report(session, sop_instance_uid)
        if stored is not None:
            return stored
        earlier = job_lifecycle.predecessor(session, claimed.study_id, sop_instance_uid)
    predecessor = _predecessor(analysis.study_instance_uid, earlier)
    report = report_of(analysis, instances, provenance, predecessor)
    return ReportRow(
        study_id=claimed.study_id,
        revision=claimed.revision,
        sop_class_uid=report.sop_class_uid,
        sop_instance_uid=report.sop_instance_uid,
        series_instance_uid=report.series_instance_uid,
        sha256=report.sha256,
        file=site.store.put("reports", report.sha256, report.content),
    )


def _predecessor(study_instance_uid: str, row: ReportRow | None) -> Predecessor | None:
    if row is None:
        return None
    return Predecessor(
        study_instance_uid, row.series_instance_uid, row.sop_class_uid, row.sop_instance_uid
    )
