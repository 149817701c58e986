"""The ANALYSE job: a stored study in; findings, a stored report and its deliveries out, in one transaction."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from db import job_lifecycle, studies
from db.context import SiteContext
from db.jobs import Claimed
from db.models import ReportRow
from db.studies import StudyEvent
from lumbar import VERSION
from lumbar.dicom.discover import MRInstance
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.errors import NotAnalysable, NotDicom, Transient
from lumbar.networks import Networks
from lumbar.reports.report import Predecessor, Report
from lumbar.reports.report_uids import report_uid
from lumbar.reports.sr import OUTPUT, build_sr
from lumbar.spine.provenance import Provenance
from worker.pipeline import Analysis, analyse

log = structlog.get_logger()


class StoreUnavailable(Transient):
    """The store does not hold what it was given, for now."""


def analyse_study(site: SiteContext, networks: Networks, claimed: Claimed) -> None:
    """Analyses a claimed study and writes its outcome.

    Raises:
        LeaseLostError: overtaken meanwhile; nothing was written. Transient: disk or database.
    """
    left_out: tuple[str, ...] = ()
    try:
        instances, left_out = _instances(site, claimed)
        analysis = analyse(instances, networks)
        _require_a_finding(analysis)
    except NotAnalysable as error:
        with site.database.transaction() as session:
            told = error.notes + left_out
            job_lifecycle.end_analysis(
                session, claimed, StudyEvent.REFUSED, reason=str(error), told=told
            )
        return
    row = _stored_report(site, claimed, analysis, instances, networks)
    with site.database.transaction() as session:
        job_lifecycle.end_analysis(
            session,
            claimed,
            StudyEvent.ANALYSED,
            found=analysis.findings,
            told=analysis.choices + left_out,
            caveats=analysis.caveats,
            bundle=networks.identity,
            report=row,
            destinations=site.settings.destinations,
        )


def _require_a_finding(analysis: Analysis) -> None:
    """A report of 25 times "not assessed" tells a reader nothing: the study's state and its reason do."""
    if not any(finding.assessed for finding in analysis.findings):
        raise NotAnalysable(
            f"nothing could be assessed: {analysis.findings[0].reason}", analysis.choices
        )


def provenance_of(
    settings_sha256: str, networks: Networks, instances: list[MRInstance]
) -> Provenance:
    """All that decides the result."""
    return Provenance(
        bundle=networks.identity,
        code_version=VERSION,
        settings_sha256=settings_sha256,
        input_sop_instance_uids=tuple(
            sorted(str(found.header.SOPInstanceUID) for found in instances)
        ),
    )


def report_of(
    analysis: Analysis,
    instances: list[MRInstance],
    provenance: Provenance,
    predecessor: Predecessor | None = None,
) -> Report:
    """The Structured Report of an analysis, stamped with this moment."""
    used = {finding.point.sop_instance_uid for finding in analysis.findings if finding.point}
    sources = [found.header for found in instances if found.header.SOPInstanceUID in used] or [
        instances[0].header
    ]
    return build_sr(
        sources,
        analysis.findings,
        provenance,
        caveats=analysis.caveats,
        created=datetime.now(UTC).astimezone(),
        predecessor=predecessor,
    )


def _instances(site: SiteContext, claimed: Claimed) -> tuple[list[MRInstance], tuple[str, ...]]:
    """The study's readable instances. One that is no image we can place is left out, and told of; the rest goes on."""
    with site.database.reading() as session:
        rows = studies.instances_in_use(session, claimed.study_id)
    if removed := sum(row.removed_at is not None for row in rows):
        raise NotAnalysable(
            f"{removed} of its {len(rows)} images were removed to make room; send the study again"
        )
    instances, reasons = [], []
    for row in rows:
        path = site.store.path(row.file)
        _require_stored(path, row.size)
        try:
            header = read_header(path)
            instances.append(MRInstance(path, header, tuple(slice_headers(header))))
        except NotDicom as error:
            reasons.append(str(error))
    if not instances:
        why = reasons[0] if reasons else "nothing was received"
        raise NotAnalysable(
            f"none of the study's {len(rows)} instances can be read: {why}", _left_out(reasons)
        )
    if reasons:
        log.warning(
            "analysis.left_out",
            study=claimed.study_id,
            instances=len(reasons),
            why=sorted(set(reasons)),
        )
    return instances, _left_out(reasons)


def _left_out(reasons: Sequence[str]) -> tuple[str, ...]:
    """A line for each reason: how many images it left out."""
    counts = sorted(Counter(reasons).items())
    return tuple(
        f"{count} {'image' if count == 1 else 'images'} left out: {why}" for why, count in counts
    )


def _require_stored(path: Path, size: int) -> None:
    """What was acknowledged must be read: a store that is away is no study without images."""
    try:
        there = path.stat().st_size
    except OSError as error:
        raise StoreUnavailable(
            f"a stored image cannot be read ({error.strerror}); is the store mounted?"
        ) from error
    if there != size:
        raise StoreUnavailable(
            f"a stored image has {there} bytes and was stored with {size}; restore it from a copy"
        )


def _stored_report(
    site: SiteContext,
    claimed: Claimed,
    analysis: Analysis,
    instances: list[MRInstance],
    networks: Networks,
) -> ReportRow:
    """The report's row; its bytes are stored before anything is sent, and an equal run finds those of the first."""
    provenance = provenance_of(site.settings.results_sha256, networks, instances)
    sop_instance_uid = report_uid(analysis.study_instance_uid, provenance, OUTPUT)
    with site.database.reading() as session:
        known = job_lifecycle.stored_report(session, sop_instance_uid)
        if known is not None:
            return known
        before = job_lifecycle.predecessor(session, claimed.study_id, sop_instance_uid)
    report = report_of(
        analysis, instances, provenance, _predecessor(analysis.study_instance_uid, before)
    )
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
