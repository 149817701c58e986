"""The pages of those who run it: the queue, quality, the system, the people, the audit trail."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from db import accounts, audit, operator_actions
from db.models import OPEN_JOB_STATES, JobKind, JobState, UserRole
from db.read_models import statistics
from db.read_models.reviewed_labels import labels
from web import csv_export
from web.auth import Admin, Operator, Reviewer, TheAuditTrail, TheSite, Viewer
from web.params import LARGEST, ChosenNumber, Done, Text
from web.rendering import DEEDS, link, page

router = APIRouter(include_in_schema=False)

ROWS = 50  # on a page
MAX_SAVED = 100_000  # jobs in a file


@router.get("/jobs")
def jobs(
    request: Request,
    site: TheSite,
    actor: Operator,
    state: Annotated[list[JobState] | None, Query()] = None,
    kind: Annotated[list[JobKind] | None, Query()] = None,
    done: Done = "",
) -> Response:
    states = state or list(OPEN_JOB_STATES)
    with site.database.reading() as session:
        rows = operator_actions.listed(session, states=states, kinds=kind or (), limit=ROWS * 4)
        flight = statistics.in_flight(session)
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
        csv=link("/jobs.csv", {"state": states, "kind": kind or []}),
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
        rows = operator_actions.listed(
            session, states=state or OPEN_JOB_STATES, kinds=kind or (), limit=MAX_SAVED
        )
    records = [
        asdict(row) | {"run_after": row.run_after.isoformat(timespec="seconds")} for row in rows
    ]
    return csv_export.as_csv("jobs.csv", csv_export.JOB_COLUMNS, iter(records))


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
        weeks = statistics.by_week(session, scanner=scanner, bundle_id=bundle)
        scanners = statistics.scanners(session)
        bundles = statistics.bundles(session)
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


def _tallest(weeks: Sequence[statistics.Week]) -> int:
    return max((week.assessed for week in weeks), default=0)


@router.get("/reviews.zip")
def reviewed_labels(site: TheSite, trail: TheAuditTrail, actor: Reviewer) -> Response:
    """What readers said, as the tables of the RSNA layout; `lumbar export-labels` adds the images."""
    trail.record_view("reviews.exported", actor.name)
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
        bundles = statistics.bundles(session)
        flight = statistics.in_flight(session)
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
        request,
        "users.html",
        people=people,
        tokens=tokens,
        roles=tuple(UserRole),
        said=DEEDS.get(done),
        made=None,
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
        rows, following = audit.search(
            session, event=event, actor=who, study=uid, limit=ROWS * 2, after=after
        )
    asked = {"event": event, "who": who, "uid": uid}
    return page(
        request,
        "audit.html",
        rows=rows,
        event=event,
        who=who,
        uid=uid,
        next=link("/audit", asked | {"after": following}) if following else None,
    )
