"""The operators' and administrators' pages: jobs, quarantine, quality, system, users, audit."""

import io
import zipfile
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from db import accounts, api_tokens, audit, disk_usage, operator_actions, quarantine
from db.models import OPEN_JOB_STATES, JobKind, JobState, UserRole
from db.read_models import destinations, statistics
from db.read_models.reviewed_labels import labels
from lumbar.audit_messages import in_words, objects_of
from web import csv_export
from web.auth import Admin, Operator, Reviewer, TheAuditTrail, TheSite, Viewer
from web.params import LARGEST, ChosenNumber, Done, Text
from web.places import ExportPlace
from web.rendering import CONFIRMATIONS, link, page

router = APIRouter(include_in_schema=False)

ROWS = 50  # on a page
MAX_EXPORTED = 100_000  # rows of a file


@router.get("/jobs")
def jobs(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Operator,
    state: Annotated[list[JobState] | None, Query()] = None,
    kind: Annotated[list[JobKind] | None, Query()] = None,
    done: Done = "",
) -> Response:
    trail.record_visit("jobs.seen", actor.participant)
    states = state or list(OPEN_JOB_STATES)
    with site.database.reading() as session:
        rows = operator_actions.list_jobs(session, states=states, kinds=kind or (), limit=ROWS * 4)
        in_flight = statistics.in_flight(session)
    return page(
        request,
        "jobs.html",
        rows=rows,
        in_flight=in_flight,
        chosen_states=states,
        chosen_kinds=kind or [],
        states=tuple(JobState),
        kinds=(JobKind.ANALYSE, JobKind.DELIVER),  # previews have no rows in `job`
        max_rows=ROWS * 4,
        csv=link("/jobs.csv", {"state": states, "kind": kind or []}),
        confirmation=CONFIRMATIONS.get(done),
    )


@router.get("/jobs.csv")
def jobs_csv(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Operator,
    place: ExportPlace,
    state: Annotated[list[JobState] | None, Query()] = None,
    kind: Annotated[list[JobKind] | None, Query()] = None,
) -> Response:
    trail.record("jobs.exported", actor.participant)
    with site.database.reading() as session:
        rows = operator_actions.list_jobs(
            session, states=state or OPEN_JOB_STATES, kinds=kind or (), limit=MAX_EXPORTED
        )
    records = [
        asdict(row) | {"run_after": row.run_after.isoformat(timespec="seconds")} for row in rows
    ]
    return csv_export.as_csv("jobs.csv", csv_export.JOB_COLUMNS, iter(records))


@router.get("/quarantine")
def quarantined(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    uid: Text = "",
    done: Done = "",
) -> Response:
    """What is quarantined, of one study or of all."""
    trail.record_view("quarantine.seen", actor.participant)
    rows = quarantine.list_quarantined(site, uid or None, ROWS * 4)
    return page(
        request,
        "quarantine.html",
        rows=rows,
        uid=uid,
        max_rows=ROWS * 4,
        csv=link("/quarantine.csv", {"uid": uid}),
        confirmation=CONFIRMATIONS.get(done),
    )


@router.get("/quarantine.csv")
def quarantined_csv(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, place: ExportPlace, uid: Text = ""
) -> Response:
    trail.record("quarantine.exported", actor.participant)
    rows = quarantine.list_quarantined(site, uid or None, MAX_EXPORTED)
    records = [
        asdict(row) | {"received_at": row.received_at.isoformat(timespec="seconds")} for row in rows
    ]
    return csv_export.as_csv("quarantine.csv", csv_export.QUARANTINE_COLUMNS, iter(records))


@router.get("/quality")
def quality(
    request: Request,
    site: TheSite,
    actor: Viewer,
    scanner: Text = "",
    bundle: ChosenNumber = None,
) -> Response:
    """Severities and readers' agreement by week, scanner and bundle: counts, no patient's data."""
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
        assessed=any(week.assessed for week in weeks),
    )


@router.get("/reviews.zip")
def reviewed_labels(site: TheSite, trail: TheAuditTrail, actor: Reviewer) -> Response:
    """The readers' reviews as tables in the RSNA layout; `lumbar export-labels` adds the images."""
    trail.record("reviews.exported", actor.participant)
    with site.database.reading() as session:
        exported = labels(session)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in exported.tables.items():
            archive.writestr(name, text)
    headers = {"Content-Disposition": 'attachment; filename="reviews.zip"'}
    return Response(content.getvalue(), media_type="application/zip", headers=headers)


@router.get("/system")
def system(
    request: Request, site: TheSite, trail: TheAuditTrail, actor: Operator, done: Done = ""
) -> Response:
    """Studies in flight, destinations, weights and the disk."""
    trail.record_visit("system.seen", actor.participant)
    with site.database.reading() as session:
        bundles = statistics.bundles(session)
        in_flight = statistics.in_flight(session)
        instances = quarantine.count(session)
        waiting = destinations.destinations(session, site.settings.destinations)
        usage = disk_usage.last_measured(session)
    return page(
        request,
        "system.html",
        destinations=waiting,
        names=sorted(site.settings.destinations),
        confirmation=CONFIRMATIONS.get(done),
        bundles=bundles,
        in_flight=in_flight,
        fill=site.store.fill_ratio(),
        unregistered=site.store.unregistered(),
        unregistrable=site.store.quarantined(),
        quarantined=instances,
        usage=usage,
        settings=site.settings,
    )


@router.get("/users")
def users_page(
    request: Request, site: TheSite, trail: TheAuditTrail, actor: Admin, done: Done = ""
) -> Response:
    trail.record_visit("users.seen", actor.participant)
    with site.database.reading() as session:
        users = accounts.users(session)
        tokens = api_tokens.tokens(session)
    return page(
        request,
        "users.html",
        users=users,
        tokens=tokens,
        roles=tuple(UserRole),
        confirmation=CONFIRMATIONS.get(done),
    )


@router.get("/audit")
def audit_trail(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Admin,
    event: Text = "",
    who: Text = "",
    address: Text = "",
    uid: Text = "",
    refused: bool = False,
    after: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
) -> Response:
    trail.record_visit("audit.seen", actor.participant)
    with site.database.reading() as session:
        only = audit.Filter(event, who, address, uid, refused)
        rows, next_after = audit.search(session, only, limit=ROWS * 2, after=after)
    query = {"event": event, "who": who, "address": address, "uid": uid}
    query |= {"refused": "true"} if refused else {}
    return page(
        request,
        "audit.html",
        rows=rows,
        only=only,
        objects_of=objects_of,
        in_words=in_words,
        next=link("/audit", query | {"after": next_after}) if next_after else None,
    )
