"""The pages of those who read: what to read first and why, one study, findings across studies."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from db import studies
from db.context import SiteContext
from db.database import Database
from db.models import StudyState
from db.read_models import findings, statistics, worklist
from db.read_models.findings import FindingFilter
from db.read_models.study_detail import Cell, StudyDetail, study_detail
from db.read_models.worklist import StudyFilter, StudyPage
from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity
from web import csv_export
from web.auth import TheAuditTrail, TheSite, Viewer
from web.params import LARGEST, Done, OfStudies, Text
from web.rendering import CONFIRMATIONS, link, page

router = APIRouter(include_in_schema=False)

ROWS = 50  # on a page


@router.get("/")
def reading_worklist(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: OfStudies,
    after: Text = "",
    done: Done = "",
) -> Response:
    trail.record_view("worklist.seen", actor.name)
    with site.database.reading() as session:
        shown = worklist.worklist(session, site.ranking, limit=ROWS, after=after or None, only=only)
        waiting = worklist.waiting(session, site.ranking)
    return _listed(request, site, "worklist.html", shown, only, after, done, waiting=waiting)


@router.get("/studies")
def all_studies(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: OfStudies,
    after: Text = "",
    done: Done = "",
) -> Response:
    trail.record_view("studies.seen", actor.name)
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
    asked = {"q": only.text, "state": list(only.states), "scanner": only.scanner, "since": since}
    return page(
        request,
        template,
        rows=shown.rows,
        next=link(request.url.path, asked | {"after": shown.next_after})
        if shown.next_after
        else None,
        first=link(request.url.path, asked) if after else None,
        only=only,
        states=tuple(StudyState),
        scanners=scanners,
        confirmation=CONFIRMATIONS.get(done),
        days=site.settings.worklist_days,
        **more,
    )


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
        told = study_detail(session, uid, site.ranking)
    trail.record_view("study.seen", actor.name, study_id)
    cells = {cell.finding.key: cell for cell in told.cells}
    key = _key(at)
    chosen = cells.get(key) if key else None
    marks = [
        {
            "name": f"{cell.finding.level.label} {cell.finding.condition.label.lower()}",
            "at": name_of(cell.finding.key),
            "severity": cell.finding.severity,
            "instance": cell.finding.point.sop_instance_uid,
            "frame": cell.finding.point.frame or 0,
            "column": round(cell.finding.point.column, 2),
            "row": round(cell.finding.point.row, 2),
        }
        for cell in told.cells
        if cell.finding.point
    ]
    return page(
        request,
        "study.html",
        told=told,
        study=told.study,
        cells=cells,
        chosen=chosen or _gravest(told),
        marks=marks,
        name_of=name_of,
        viewer=viewerlink(site, told),
        confirmation=CONFIRMATIONS.get(done),
        FindingKey=FindingKey,
    )


def name_of(key: FindingKey) -> str:
    """A finding in an address."""
    return f"{key.condition}.{key.level}"


def _key(name: str) -> FindingKey | None:
    condition, _, level = name.partition(".")
    try:
        return FindingKey(Condition(condition), Level(level))
    except ValueError:
        return None


def _gravest(told: StudyDetail) -> Cell | None:
    """The finding to look at first: the severest, the canal before the others."""
    order: list[Severity | None] = [None, *Severity]

    def grave(cell: Cell) -> tuple[int, bool, float]:
        finding = cell.finding
        canal = finding.condition is Condition.SPINAL_CANAL_STENOSIS
        return order.index(finding.severity), canal, (finding.probabilities or (0,))[-1]

    return max((cell for cell in told.cells if cell.finding.assessed), key=grave, default=None)


def viewerlink(site: SiteContext, told: StudyDetail) -> str | None:
    """Where the site's own viewer shows the study."""
    template = site.settings.viewer_url
    if template is None:
        return None
    values = {
        "study": told.study.study_instance_uid,
        "accession": told.study.accession_number,
        "patient": told.study.patient_identifier,
    }
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template


@router.get("/findings")
def findings_page(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    severity: Annotated[list[Severity] | None, Query()] = None,
    condition: Annotated[list[Condition] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    scanner: Text = "",
    since: Text = "",
    after: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
) -> Response:
    only = FindingFilter(severity or (), condition or (), level or (), scanner, _day(since))
    trail.record_view("findings.seen", actor.name)
    with site.database.reading() as session:
        shown = findings.found(session, only, limit=ROWS, after=after)
        scanners = statistics.scanners(session)
    asked = {
        "severity": list(only.severities),
        "condition": list(only.conditions),
        "level": list(only.levels),
        "scanner": scanner,
        "since": since,
    }
    return page(
        request,
        "findings.html",
        rows=shown.rows,
        only=only,
        since=since if only.since else "",
        scanners=scanners,
        next=link("/findings", asked | {"after": shown.next_after}) if shown.next_after else None,
        csv=link("/findings.csv", asked),
        name_of=name_of,
    )


@router.get("/findings.csv")
def findings_csv(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    severity: Annotated[list[Severity] | None, Query()] = None,
    condition: Annotated[list[Condition] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    scanner: Text = "",
    since: Text = "",
) -> Response:
    only = FindingFilter(severity or (), condition or (), level or (), scanner, _day(since))
    trail.record_view("findings.exported", actor.name)
    return csv_export.as_csv(
        "findings.csv", csv_export.FOUND_COLUMNS, _all_found(site.database, only)
    )


def _all_found(database: Database, only: FindingFilter) -> Iterator[dict[str, Any]]:
    after: int | None = None
    while True:
        with database.reading() as session:
            shown = findings.found(session, only, limit=1000, after=after)
        for row in shown.rows:
            yield csv_export.found_record(row)
        if shown.next_after is None:
            return
        after = shown.next_after


def _day(text: str) -> datetime | None:
    """Midnight of a date, or so many hours or days ago; None where it is neither."""
    try:
        if text[-1:] in ("h", "d"):
            return datetime.now().astimezone() - timedelta(
                hours=float(text[:-1]) * (24 if text[-1] == "d" else 1)
            )
        return datetime.fromisoformat(text).astimezone() if text else None
    except (ValueError, OverflowError):
        return None
