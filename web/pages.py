"""The readers' pages: the worklist, all studies, one study, findings across studies."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from db import quarantine, studies
from db.context import SiteContext
from db.models import ReadingState, StudyState
from db.read_models import findings, statistics, worklist
from db.read_models.corrections import corrected_studies
from db.read_models.findings import CURSOR_PATTERN, FindingsPage
from db.read_models.study_detail import StudyDetail, study_detail
from db.read_models.worklist import StudyFilter, StudyPage
from lumbar.reports.finding_records import FINDING_COLUMNS, StudyFinding, finding_record
from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity
from lumbar.spine.findings import Finding, ImagePoint
from web.auth import TheAuditTrail, TheSite, Viewer
from web.csv_export import as_csv
from web.params import (
    AnyRequestedStudies,
    Done,
    FindingsQuery,
    KnownParametersOnly,
    RequestedFindings,
    RequestedStudies,
    Text,
)
from web.places import ExportPlace
from web.rendering import CONFIRMATIONS, link, page

router = APIRouter(include_in_schema=False)

ROWS = 50  # on a page
MAX_CORRECTED = 10  # studies that the worklist names because a correction waits
MAX_QUARANTINED = 20  # instances on a study's page; all of them are listed under /quarantine


@router.get("/")
def reading_worklist(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: RequestedStudies,
    after: Text = "",
    done: Done = "",
) -> Response:
    trail.record_view("worklist.seen", actor.participant)
    with site.database.reading() as session:
        shown = worklist.worklist(session, site.ranking, limit=ROWS, after=after or None, only=only)
        more = {
            "waiting": worklist.waiting(session, site.ranking),
            "corrected": corrected_studies(session, MAX_CORRECTED),
        }
    return _listed(request, site, "worklist.html", shown, only, after, done, **more)


@router.get("/studies")
def all_studies(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: AnyRequestedStudies,
    after: Text = "",
    done: Done = "",
) -> Response:
    trail.record_view("studies.seen", actor.participant)
    with site.database.reading() as session:
        shown = worklist.studies(session, site.ranking, limit=ROWS, after=after or None, only=only)
    return _listed(request, site, "studies.html", shown, only, after, done)


def _listed(
    request: Request,
    site: SiteContext,
    template: str,
    shown: StudyPage,
    only: StudyFilter,
    after: str,
    done: str,
    **more: Any,
) -> Response:
    with site.database.reading() as session:
        scanners = statistics.scanners(session)
    since = only.since.isoformat() if only.since else ""
    parameters = {
        "q": only.text,
        "state": list(only.states),
        "scanner": only.scanner,
        "since": since,
        "reading": only.reading,
        "severe": "true" if only.severe else "",
    }
    return page(
        request,
        template,
        rows=shown.rows,
        next=_next(request.url.path, parameters, shown.next_after),
        first=link(request.url.path, parameters) if after else None,
        only=only,
        states=tuple(StudyState),
        readings=tuple(ReadingState),
        scanners=scanners,
        confirmation=CONFIRMATIONS.get(done),
        days=site.settings.worklist_days,
        **more,
    )


def _next(path: str, parameters: dict[str, Any], after: str | None) -> str | None:
    """The address of the next page; None at the end."""
    return link(path, parameters | {"after": after}) if after else None


@router.get("/studies/{uid}")
def one_study(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    uid: str,
    at: Text = "",
    done: Done = "",
) -> Response:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        detail = study_detail(session, uid, site.ranking)
    trail.record_view("study.seen", actor.participant, study_id)
    quarantined = quarantine.list_quarantined(site, uid, MAX_QUARANTINED)
    by_key = {row.finding.key: row for row in detail.findings}
    key = _key(at)
    chosen = by_key.get(key) if key else None
    return page(
        request,
        "study.html",
        detail=detail,
        study=detail.study,
        by_key=by_key,
        quarantined=quarantined,
        max_quarantined=MAX_QUARANTINED,
        chosen=chosen or _most_severe(detail),
        marks=_marks(detail),
        name_of=name_of,
        viewer=viewer_link(site, detail),
        confirmation=CONFIRMATIONS.get(done),
        FindingKey=FindingKey,
    )


def _marks(detail: StudyDetail) -> list[dict[str, Any]]:
    """The points where the assessed findings were read, for the page's script."""
    findings_shown = [row.finding for row in detail.findings]
    return [_mark(finding, finding.point) for finding in findings_shown if finding.point]


def _mark(finding: Finding, point: ImagePoint) -> dict[str, Any]:
    return {
        "name": f"{finding.level.label} {finding.condition.label.lower()}",
        "at": name_of(finding.key),
        "severity": finding.severity,
        "instance": point.sop_instance_uid,
        "frame": point.frame or 0,
        "column": round(point.column, 2),
        "row": round(point.row, 2),
    }


def name_of(key: FindingKey) -> str:
    """A finding's name in an address: ``condition.level``."""
    return f"{key.condition}.{key.level}"


def _key(name: str) -> FindingKey | None:
    condition, _, level = name.partition(".")
    try:
        return FindingKey(Condition(condition), Level(level))
    except ValueError:
        return None


def _most_severe(detail: StudyDetail) -> StudyFinding | None:
    """The finding that is shown first: the most severe, the canal before the others."""
    order: list[Severity | None] = [None, *Severity]

    def precedence(row: StudyFinding) -> tuple[int, bool, float]:
        finding = row.finding
        canal = finding.condition is Condition.SPINAL_CANAL_STENOSIS
        return order.index(finding.severity), canal, (finding.probabilities or (0,))[-1]

    assessed = (row for row in detail.findings if row.finding.assessed)
    return max(assessed, key=precedence, default=None)


def viewer_link(site: SiteContext, detail: StudyDetail) -> str | None:
    """The study's address in the site's own viewer; None if there is no viewer."""
    template = site.settings.viewer_url
    if template is None:
        return None
    values = {
        "study": detail.study.study_instance_uid,
        "accession": detail.study.accession_number,
        "patient": detail.study.patient_identifier,
    }
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template


@router.get("/findings", dependencies=[KnownParametersOnly])
def findings_page(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    query: FindingsQuery,
    after: Annotated[str | None, Query(pattern=CURSOR_PATTERN)] = None,
) -> Response:
    only = query.only
    trail.record_view("findings.seen", actor.participant)
    with site.database.reading() as session:
        shown = FindingsPage((), None)
        if not query.errors:
            shown = findings.page(session, only, limit=ROWS, after=after)
        scanners = statistics.scanners(session)
    parameters = {
        "severity": list(only.severities),
        "condition": list(only.conditions),
        "level": list(only.levels),
        "scanner": only.scanner,
        "since": query.since,
        "until": query.until,
    }
    return page(
        request,
        "findings.html",
        status=422 if query.errors else 200,
        rows=shown.rows,
        query=query,
        only=only,
        scanners=scanners,
        next=_next("/findings", parameters, shown.next_after),
        csv=link("/findings.csv", parameters),
        name_of=name_of,
    )


@router.get("/findings.csv", dependencies=[KnownParametersOnly])
def findings_csv(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, place: ExportPlace, only: RequestedFindings
) -> Response:
    trail.record("findings.exported", actor.participant)
    records = map(finding_record, findings.stream(site.database, only))
    return as_csv("findings.csv", FINDING_COLUMNS, records)
