"""The pages: what to read first and why, one study, findings across studies, the queue, the people."""

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response

from db import accounts, by_hand, found, overview, studies, worklist
from db.found import FindingFilter
from db.labels import labels
from db.session import Database
from db.site import Site
from db.story import Cell, Story, story
from db.tables import JobKind, JobState, StudyState, UserRole
from db.worklist import StudyFilter, StudyPage
from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity
from web import tables
from web.access import Admin, Operator, Reviewer, TheSite, TheTrail, Viewer
from web.fields import LARGEST, Chosen, ChosenNumber
from web.rendering import page

router = APIRouter(include_in_schema=False)

ROWS = 50  # on a page
MOST_SAVED = 100_000  # jobs in a file
NOT_OVER = [JobState.DEAD, JobState.RUNNING, JobState.PENDING]
DEEDS = {
    "requeued": "The study is queued again.",
    "completed": "The study is queued.",
    "read": "The study is marked as read and has left the worklist.",
    "unread": "The study waits to be read.",
    "reviewed": "Your word on the finding is noted.",
    "retried": "The job is due now.",
    "cancelled": "The job is cancelled.",
    "sent": "The report will be sent again.",
    "deleted": "The study is deleted.",
    "saved": "The change is saved.",
}  # fmt: skip

Text = Annotated[str, Query(max_length=200)]
Done = Annotated[str, Query(max_length=20)]


@router.get("/")
def reading_worklist(
    request: Request,
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    q: Text = "",
    state: Annotated[list[StudyState] | None, Chosen, Query()] = None,
    scanner: Text = "",
    after: Text = "",
    done: Done = "",
) -> Response:
    only = StudyFilter(q, state or (), scanner)
    trail.saw("worklist.seen", actor.name)
    with site.database.reading() as session:
        shown = worklist.worklist(session, site.ranking, limit=ROWS, after=after or None, only=only)
        waiting = worklist.waiting(session, site.ranking)
    return _listed(request, site, "worklist.html", shown, only, after, done, waiting=waiting)


@router.get("/studies")
def all_studies(
    request: Request,
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    q: Text = "",
    state: Annotated[list[StudyState] | None, Chosen, Query()] = None,
    scanner: Text = "",
    after: Text = "",
    done: Done = "",
) -> Response:
    only = StudyFilter(q, state or (), scanner)
    trail.saw("studies.seen", actor.name)
    with site.database.reading() as session:
        shown = worklist.studies(session, site.ranking, limit=ROWS, after=after or None, only=only)
    return _listed(request, site, "studies.html", shown, only, after, done)


def _listed(
    request: Request,
    site: Site,
    template: str,
    shown: StudyPage,
    only: StudyFilter,
    after: str,
    done: str,
    **more: Any,
) -> Response:
    with site.database.reading() as session:
        scanners = overview.scanners(session)
    asked = {"q": only.text, "state": list(only.states), "scanner": only.scanner}
    return page(
        request,
        template,
        rows=shown.rows,
        next=_address(request.url.path, asked | {"after": shown.next_after}) if shown.next_after else None,
        first=_address(request.url.path, asked) if after else None,
        only=only,
        states=tuple(StudyState),
        scanners=scanners,
        said=DEEDS.get(done),
        days=site.settings.worklist_days,
        **more,
    )


@router.get("/studies/{uid}")
def one_study(
    request: Request,
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    uid: str,
    at: Text = "",
    done: Done = "",
) -> Response:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        told = story(session, uid, site.ranking)
    trail.saw("study.seen", actor.name, study_id)
    cells = {cell.finding.key: cell for cell in told.cells}
    key = _key(at)
    chosen = cells.get(key) if key else None
    marks = [
        {
            "name": f"{cell.finding.level.label} {cell.finding.condition.label.lower()}",
            "at": name_of(cell.finding.key),
            "severity": cell.finding.severity,
            "instance": cell.finding.place.sop_instance_uid,
            "frame": cell.finding.place.frame or 0,
            "column": round(cell.finding.place.column, 2),
            "row": round(cell.finding.place.row, 2),
        }
        for cell in told.cells
        if cell.finding.place
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
        viewer=viewer_address(site, told),
        said=DEEDS.get(done),
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


def _gravest(told: Story) -> Cell | None:
    """The finding to look at first: the severest, the canal before the others."""
    order: list[Severity | None] = [None, *Severity]

    def grave(cell: Cell) -> tuple[int, bool, float]:
        finding = cell.finding
        canal = finding.condition is Condition.SPINAL_CANAL_STENOSIS
        return order.index(finding.severity), canal, (finding.probabilities or (0,))[-1]

    return max((cell for cell in told.cells if cell.finding.assessed), key=grave, default=None)


def viewer_address(site: Site, told: Story) -> str | None:
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
def findings(
    request: Request,
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    severity: Annotated[list[Severity] | None, Query()] = None,
    condition: Annotated[list[Condition] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    scanner: Text = "",
    since: Text = "",
    after: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
) -> Response:
    only = FindingFilter(severity or (), condition or (), level or (), scanner, _day(since))
    trail.saw("findings.seen", actor.name)
    with site.database.reading() as session:
        shown = found.found(session, only, limit=ROWS, after=after)
        scanners = overview.scanners(session)
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
        next=_address("/findings", asked | {"after": shown.next_after}) if shown.next_after else None,
        csv=_address("/findings.csv", asked),
        name_of=name_of,
    )


@router.get("/findings.csv")
def findings_csv(
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    severity: Annotated[list[Severity] | None, Query()] = None,
    condition: Annotated[list[Condition] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    scanner: Text = "",
    since: Text = "",
) -> Response:
    only = FindingFilter(severity or (), condition or (), level or (), scanner, _day(since))
    trail.saw("findings.exported", actor.name)
    return tables.as_csv("findings.csv", tables.FOUND_COLUMNS, _all_found(site.database, only))


def _all_found(database: Database, only: FindingFilter) -> Iterator[dict[str, Any]]:
    after: int | None = None
    while True:
        with database.reading() as session:
            shown = found.found(session, only, limit=1000, after=after)
        for row in shown.rows:
            yield tables.found_record(row)
        if shown.next_after is None:
            return
        after = shown.next_after


@router.get("/jobs")
def jobs(
    request: Request,
    site: TheSite,
    actor: Operator,
    state: Annotated[list[JobState] | None, Query()] = None,
    kind: Annotated[list[JobKind] | None, Query()] = None,
    done: Done = "",
) -> Response:
    states = state or NOT_OVER
    with site.database.reading() as session:
        rows = by_hand.listed(session, states=states, kinds=kind or (), limit=ROWS * 4)
        flight = overview.in_flight(session)
    return page(
        request,
        "jobs.html",
        rows=rows,
        flight=flight,
        chosen_states=states,
        chosen_kinds=kind or [],
        states=tuple(JobState),
        kinds=(JobKind.ANALYSE, JobKind.DELIVER),  # those that have rows here
        most=ROWS * 4,
        csv=_address("/jobs.csv", {"state": states, "kind": kind or []}),
        said=DEEDS.get(done),
    )


@router.get("/jobs.csv")
def jobs_csv(
    site: TheSite,
    actor: Operator,
    state: Annotated[list[JobState] | None, Query()] = None,
    kind: Annotated[list[JobKind] | None, Query()] = None,
) -> Response:
    with site.database.reading() as session:
        rows = by_hand.listed(session, states=state or NOT_OVER, kinds=kind or (), limit=MOST_SAVED)
    records = [asdict(row) | {"run_after": row.run_after.isoformat(timespec="seconds")} for row in rows]
    return tables.as_csv("jobs.csv", tables.JOB_COLUMNS, iter(records))


@router.get("/quality")
def quality(
    request: Request,
    site: TheSite,
    actor: Viewer,
    scanner: Text = "",
    bundle: ChosenNumber = None,
) -> Response:
    """What was found, and how often readers agreed, by week, scanner and bundle: counts, of nobody in particular."""
    with site.database.reading() as session:
        weeks = overview.by_week(session, scanner=scanner, bundle_id=bundle)
        scanners = overview.scanners(session)
        bundles = overview.bundles(session)
    return page(
        request,
        "quality.html",
        weeks=weeks,
        scanners=scanners,
        scanner=scanner,
        bundles=bundles,
        bundle=bundle,
        tallest=_tallest(weeks),
    )


def _tallest(weeks: Sequence[overview.Week]) -> int:
    return max((week.assessed for week in weeks), default=0)


@router.get("/reviews.zip")
def reviewed_labels(site: TheSite, trail: TheTrail, actor: Reviewer) -> Response:
    """What readers said, as the tables of the RSNA layout; `lumbar export-labels` adds the images."""
    trail.saw("reviews.exported", actor.name)
    with site.database.reading() as session:
        told = labels(session)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in told.tables.items():
            archive.writestr(name, text)
    headers = {"Content-Disposition": 'attachment; filename="reviews.zip"'}
    return Response(held.getvalue(), media_type="application/zip", headers=headers)


@router.get("/system")
def system(request: Request, site: TheSite, actor: Operator) -> Response:
    """Destinations, weights and the disk."""
    with site.database.reading() as session:
        bundles = overview.bundles(session)
        flight = overview.in_flight(session)
    return page(
        request,
        "system.html",
        destinations=sorted(site.settings.destinations),
        bundles=bundles,
        flight=flight,
        fill=site.store.fill(),
        settings=site.settings,
    )


@router.get("/users")
def users(request: Request, site: TheSite, actor: Admin, done: Done = "") -> Response:
    with site.database.reading() as session:
        people = accounts.users(session)
        tokens = accounts.tokens(session)
    return page(
        request, "users.html", people=people, tokens=tokens, roles=tuple(UserRole), said=DEEDS.get(done), made=None
    )


@router.get("/audit")
def audit_trail(
    request: Request,
    site: TheSite,
    actor: Admin,
    event: Text = "",
    who: Text = "",
    uid: Text = "",
    after: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
) -> Response:
    with site.database.reading() as session:
        rows, following = overview.audit_trail(session, event=event, actor=who, study=uid, limit=ROWS * 2, after=after)
    asked = {"event": event, "who": who, "uid": uid}
    return page(
        request,
        "audit.html",
        rows=rows,
        event=event,
        who=who,
        uid=uid,
        next=_address("/audit", asked | {"after": following}) if following else None,
    )


def _day(text: str) -> datetime | None:
    """Midnight of a date, or so many hours or days ago; None where it is neither."""
    try:
        if text[-1:] in ("h", "d"):
            return datetime.now().astimezone() - timedelta(hours=float(text[:-1]) * (24 if text[-1] == "d" else 1))
        return datetime.fromisoformat(text).astimezone() if text else None
    except (ValueError, OverflowError):
        return None


def _address(path: str, asked: Mapping[str, object]) -> str:
    given = {name: value for name, value in asked.items() if value not in (None, "", [], ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
