"""Every route that shows or changes something leaves a line in the audit trail, also if refused.

The routes are the application's own, so that a new one fails here until it says what it leaves.
"""

from dataclasses import dataclass
from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import select, update

from db import accounts, api_tokens, quarantine
from db.ingest import ingest
from db.models import ApiToken, AuditEvent, Permission, User, UserRole
from lumbar.audit_messages import Outcome
from tests.factories.accounts import OPERATOR, PASSWORD, add_user
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.routes import NEEDS, OPEN
from tests.integration.site_with_studies import (
    ARRIVING_UID,
    DEAD_JOB,
    DELIVERED_JOB,
    FAILED_UID,
    SEVERE_UID,
    WAITING_JOB,
    add_studies,
)
from tests.integration.test_web_auth import PROTECTED, routes, send, table_routes
from tests.integration.upload_factory import image, read
from tests.integration.web_client import WebClient, browser_client, row, sqlite_only, token_client
from web.app import create_app

pytestmark = sqlite_only

# Routes that neither change anything nor show anything of a patient or of another user
UNAUDITED = {
    "GET /me",
    "GET /quality",  # counts
    "GET /upload",  # names of the user's own uploads
    "GET /api/v1/bundles",
    "GET /api/v1/worklist/counts",
    "GET /api/v1/openapi.json",
    "GET /sign-in",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
}


@dataclass(frozen=True)
class Audited:
    """What a route leaves in the trail, and the request that makes it do so."""

    event: str
    path: str = ""  # as it is in ``routes``, unless it has parts to be filled in
    form: dict[str, object] | None = None


STUDY, API = f"/studies/{SEVERE_UID}", "/api/v1"
AUDITED = {
    "GET /": Audited("worklist.seen"),
    "GET /studies": Audited("studies.seen"),
    "GET /studies/{uid}": Audited("study.seen", STUDY),
    "GET /studies/{uid}/series": Audited("images.seen", f"{STUDY}/series"),
    "GET /studies/{uid}/instances/{instance}/frames/{frame}": Audited(
        "images.seen", f"{STUDY}/instances/1.2/frames/0"
    ),
    "GET /findings": Audited("findings.seen"),
    "GET /findings.csv": Audited("findings.exported"),
    "POST /password": Audited(
        "user.password_set", form={"current": PASSWORD, "password": "a new one, and long"}
    ),
    "POST /sign-in": Audited("sign_in.done", form={"name": "admin", "password": PASSWORD}),
    "POST /sign-out": Audited("sign_out"),
    "POST /sessions/{session_id}/end": Audited("user.session_ended", "/sessions/1/end"),
    "POST /sessions/end-others": Audited("user.sessions_ended"),
    "GET /reviews.zip": Audited("reviews.exported"),
    "POST /studies/{uid}/findings/{finding_id}/review": Audited(
        "finding.reviewed", f"{STUDY}/findings/1/review", {"severity": "severe"}
    ),
    "POST /studies/{uid}/read": Audited("study.read", f"{STUDY}/read"),
    "POST /studies/{uid}/requeue": Audited("study.requeued", f"/studies/{FAILED_UID}/requeue"),
    "POST /studies/{uid}/complete": Audited("study.completed", f"/studies/{ARRIVING_UID}/complete"),
    "POST /studies/{uid}/correct": Audited("study.corrected", f"/studies/{ARRIVING_UID}/correct"),
    "GET /quarantine": Audited("quarantine.seen"),
    "GET /quarantine.csv": Audited("quarantine.exported"),
    "POST /quarantine/{instance}/release": Audited(
        "instance.released", "/quarantine/{instance}/release"
    ),
    "POST /quarantine/{instance}/drop": Audited("instance.dropped", "/quarantine/{instance}/drop"),
    "GET /jobs": Audited("jobs.seen"),
    "GET /jobs.csv": Audited("jobs.exported"),
    "POST /jobs/{job}/retry": Audited("job.retried", f"/jobs/{DEAD_JOB}/retry"),
    "POST /jobs/{job}/cancel": Audited("job.cancelled", f"/jobs/{WAITING_JOB}/cancel"),
    "POST /jobs/{job}/resend": Audited("report.sent_again", f"/jobs/{DELIVERED_JOB}/resend"),
    "GET /system": Audited("system.seen"),
    "POST /destinations/{name:path}/echo": Audited("destination.tested", "/destinations/pacs/echo"),
    "POST /destinations/{name:path}/retry": Audited(
        "destination.retried", "/destinations/pacs/retry"
    ),
    "POST /destinations/{name:path}/reroute": Audited(
        "destination.rerouted", "/destinations/pacs/reroute", {"to": "archive"}
    ),
    "POST /destinations/{name:path}/cancel": Audited(
        "destination.cancelled", "/destinations/pacs/cancel"
    ),
    "POST /studies/{uid}/delete": Audited("study.deleted", f"{STUDY}/delete", {"reason": "a test"}),
    "GET /users": Audited("users.seen"),
    "POST /users": Audited(
        "user.added", form={"name": "ben", "password": PASSWORD, "role": "reader"}
    ),
    "POST /users/{name}": Audited("user.disabled", "/users/anna", {"disabled": "true"}),
    "POST /users/{name}/password": Audited(
        "user.password_set", "/users/anna/password", {"password": "a new one, and long"}
    ),
    "POST /tokens": Audited("token.made", form={"user": "anna", "name": "ris", "scopes": "read"}),
    "POST /tokens/{token}/revoke": Audited("token.revoked", "/tokens/1/revoke"),
    "GET /audit": Audited("audit.seen"),
    "GET /upload/{name}": Audited("upload.seen", "/upload/{upload}"),
    "GET /upload/{name}/picture": Audited("upload.seen", "/upload/{upload}/picture"),
    "POST /upload": Audited("upload.received"),
    "POST /upload/{name}/forget": Audited("upload.forgotten", "/upload/{upload}/forget"),
    "GET /api/v1/worklist": Audited("worklist.seen"),
    "GET /api/v1/studies": Audited("studies.seen"),
    "GET /api/v1/studies/{uid}": Audited("study.seen", f"{API}{STUDY}"),
    "GET /api/v1/studies/{uid}/deliveries": Audited("study.seen", f"{API}{STUDY}/deliveries"),
    "GET /api/v1/findings": Audited("findings.seen"),
    "PUT /api/v1/studies/{uid}/read": Audited("study.read", f"{API}{STUDY}/read", {"read": True}),
    "POST /api/v1/findings/{finding_id}/reviews": Audited(
        "finding.reviewed", f"{API}/findings/1/reviews", {"severity": "severe"}
    ),
    "POST /api/v1/studies/{uid}/requeue": Audited(
        "study.requeued", f"{API}/studies/{FAILED_UID}/requeue"
    ),
    "POST /api/v1/studies/{uid}/complete": Audited(
        "study.completed", f"{API}/studies/{ARRIVING_UID}/complete"
    ),
    "POST /api/v1/studies/{uid}/correct": Audited(
        "study.corrected", f"{API}/studies/{ARRIVING_UID}/correct"
    ),
    "GET /api/v1/studies/{uid}/quarantined": Audited("study.seen", f"{API}{STUDY}/quarantined"),
    "GET /api/v1/quarantined": Audited("quarantine.seen"),
    "POST /api/v1/quarantined/{instance}/release": Audited(
        "instance.released", f"{API}/quarantined/{{instance}}/release"
    ),
    "DELETE /api/v1/quarantined/{instance}": Audited(
        "instance.dropped", f"{API}/quarantined/{{instance}}"
    ),
    "GET /api/v1/jobs": Audited("jobs.seen"),
    "POST /api/v1/jobs/{job}/retry": Audited("job.retried", f"{API}/jobs/{DEAD_JOB}/retry"),
    "POST /api/v1/jobs/{job}/cancel": Audited("job.cancelled", f"{API}/jobs/{WAITING_JOB}/cancel"),
    "POST /api/v1/jobs/{job}/resend": Audited(
        "report.sent_again", f"{API}/jobs/{DELIVERED_JOB}/resend"
    ),
    "GET /api/v1/destinations": Audited("system.seen"),
    "POST /api/v1/destinations/{name:path}/retry": Audited(
        "destination.retried", f"{API}/destinations/pacs/retry"
    ),
    "POST /api/v1/destinations/{name:path}/reroute": Audited(
        "destination.rerouted", f"{API}/destinations/pacs/reroute", {"to": "archive"}
    ),
    "POST /api/v1/destinations/{name:path}/cancel": Audited(
        "destination.cancelled", f"{API}/destinations/pacs/cancel"
    ),
}


@pytest.fixture
def app(site) -> FastAPI:
    add_studies(site)
    for name, role in (("admin", UserRole.ADMIN), ("anna", UserRole.READER)):
        user = add_user(site.database, name, role)
        with site.database.transaction() as session:
            api_tokens.new_token(session, user, "ris", {Permission.READ}, 1, OPERATOR)
    return create_app(site)


def lines(app: FastAPI) -> list[AuditEvent]:
    """The trail, once everything is written."""
    app.state.trail.close()
    with app.state.site.database.reading() as session:
        found = list(session.scalars(select(AuditEvent).order_by(AuditEvent.id)))
        session.expunge_all()
    return found


def all_routes(app: FastAPI) -> list[str]:
    uploads = [
        f"{method} {context.path}"
        for context in iter_route_contexts(app.routes)
        if context.path.startswith("/upload")
        for method in context.methods - {"HEAD"}
    ]
    return [*routes(app.routes), *uploads]


def test_every_route_is_audited_or_shows_and_changes_nothing(app):
    assert sorted(all_routes(app)) == sorted([*AUDITED, *UNAUDITED])


def prepared(site, route: str, client: WebClient) -> dict[str, str]:
    """Makes what the route needs; returns what fills its path in."""
    if route.endswith("correct"):  # sent again under another name, completely
        ingest(site.database, site.store, arrival(make_slice(study=4, PatientName="Other^Name")))
    if "{instance}" in route:
        other = make_slice(study=4, fill=99)
        ingest(site.database, site.store, arrival(other))
        return {"instance": quarantine.list_quarantined(site)[0].id}
    if "/upload/" in route:
        place = upload(client).headers["location"]
        read(site)
        return {"upload": place.rpartition("/")[2]}
    return {}


def upload(client: WebClient):
    form = {"csrf_token": client.csrf}
    return client.post("/upload", data=form, files=[("files", ("a.dcm", image()))])


@pytest.mark.parametrize("route", AUDITED)
def test_what_is_shown_or_done_leaves_a_line(site, app, route):
    audited, (method, path) = AUDITED[route], route.split()
    browser, program = browser_client(app, UserRole.ADMIN), token_client(app, UserRole.ADMIN)
    client = program if path.startswith(API) else browser
    values = prepared(site, route, browser)
    before = len(lines(app))
    app.state.trail = type(app.state.trail)(site)
    path = (audited.path or path).format(**values)
    if route == "POST /upload":
        response = upload(browser)
    elif path.startswith(API):
        response = client.request(method, path, json=audited.form)
    else:
        form = {} if method == "GET" else {"csrf_token": browser.csrf} | (audited.form or {})
        response = client.request(method, path, data=form)
    if "/instances/" not in path:  # of which there is none with that UID; it is looked for
        assert response.status_code in (200, 201, 303), response.text
    (line,) = [new for new in lines(app)[before:] if new.event == audited.event][-1:]
    assert (line.actor.partition(" ")[0], line.address) == ("admin", "testclient")
    assert (line.outcome, line.times) == (Outcome.SUCCESS, 1)
    if ROOT in path and "destinations" not in path:
        assert line.study_id is not None
    if "{upload}" in audited.path:
        assert line.detail == {"upload": 1, "user": "admin"}


@pytest.mark.parametrize("known_by", [browser_client, token_client])
def test_what_is_refused_leaves_a_line(app, known_by):
    """One line for each route that a viewer may not use, with the study that it would be about."""
    refused = [
        route
        for route in PROTECTED
        if send(known_by(app, UserRole.VIEWER), route).status_code == 403
    ]
    assert len(refused) >= 30
    written = [line for line in lines(app) if line.event == "request.refused"]
    assert sorted(line.detail["request"] for line in written) == sorted(refused)
    for line in written:
        assert line.actor.startswith("viewer")
        assert (line.address, line.outcome) == ("testclient", Outcome.REFUSED)


def test_a_refused_deletion_names_the_study_a_refused_change_the_user(app):
    viewer = browser_client(app, UserRole.VIEWER)
    viewer.submit(f"{STUDY}/delete", reason="Doe^Jane")
    viewer.submit("/studies/Doe^Jane/delete")
    viewer.submit("/users/anna", role="admin")
    viewer.submit("/users/Doe^Jane")
    viewer.submit("/jobs/3/cancel")
    viewer.submit("/destinations/pacs/cancel")
    written = [line for line in lines(app) if line.event == "request.refused"]
    assert [(line.study_id, line.detail) for line in written] == [
        (1, {"request": "POST /studies/{uid}/delete"}),
        (None, {"request": "POST /studies/{uid}/delete"}),
        (None, {"request": "POST /users/{name}", "user": "anna"}),
        (None, {"request": "POST /users/{name}"}),
        (None, {"request": "POST /jobs/{job}/cancel", "job": 3}),
        (None, {"request": "POST /destinations/{name:path}/cancel", "destination": "pacs"}),
    ]


CHANGES = [route for route in NEEDS if route.split()[0] in ("POST", "PUT", "DELETE")]


@pytest.mark.parametrize(
    ("kind", "route"),
    [
        *(("origin", route) for route in CHANGES),
        *(("token", route) for route in CHANGES if NEEDS[route] is not OPEN),
    ],
)
def test_a_forged_request_leaves_a_line(app, kind, route):
    admin = browser_client(app, UserRole.ADMIN)
    if kind == "origin":
        admin.headers["Sec-Fetch-Site"] = "cross-site"
    else:
        admin.csrf = "guessed"
    assert send(admin, route).status_code == 403
    (line,) = [line for line in lines(app) if line.event == "request.forged"]
    assert line.actor == ("" if NEEDS[route] is OPEN else "admin")
    assert (line.address, line.outcome) == ("testclient", Outcome.REFUSED)
    assert line.detail["request"] == route


def test_sign_ins_that_are_refused_or_throttled_leave_the_name_only_if_somebody_has_it(app):
    client = WebClient(app)
    for name in ("anna", "hunter2hunter2"):
        client.post("/sign-in", data={"name": name, "password": "wrong"})
    while client.post("/sign-in", data={"name": "anna", "password": "x"}).status_code != 429:
        pass
    written = lines(app)
    refused = [line for line in written if line.event == "sign_in.refused"]
    assert [(line.actor, line.detail) for line in refused[:2]] == [
        ("anna", {}),
        ("", {"why": "no user has the name"}),
    ]
    assert "sign_in.throttled" in {line.event for line in written if line.actor == "anna"}
    assert {(line.address, line.outcome) for line in refused} == {("testclient", Outcome.REFUSED)}
    assert not [line for line in written if "hunter2" in f"{line.actor} {line.detail}"]


def test_a_refused_token_leaves_a_line_with_its_number_if_there_is_one(site, app):
    def tried(secret: str) -> None:
        assert (
            WebClient(app, Authorization=f"Bearer {secret}").get(f"{API}/jobs").status_code == 401
        )

    secrets = {}
    with site.database.transaction() as session:
        anna = accounts.user_named(session, "anna")
        for name in ("revoked", "expired", "disabled"):
            secrets[name] = api_tokens.new_token(
                session, anna, name, {Permission.READ}, 1, OPERATOR
            )
        rows = {token.name: token for token in api_tokens.tokens(session)}
        numbers = {name: rows[name].id for name in secrets}
        api_tokens.revoke_token(session, numbers["revoked"], OPERATOR)
        rows["expired"].expires_at -= timedelta(days=2)
    tried("lumbar_guessed")
    tried(secrets["revoked"])
    tried(secrets["expired"])
    with site.database.transaction() as session:
        session.execute(update(User).values(disabled_at=User.created_at))
    tried(secrets["disabled"])
    written = [line for line in lines(app) if line.event == "token.refused"]
    assert [(line.actor, line.detail) for line in written] == [
        ("", {"why": "no such token"}),
        ("anna (revoked)", {"why": "revoked", "token": numbers["revoked"]}),
        ("anna (expired)", {"why": "expired", "token": numbers["expired"]}),
        ("anna (disabled)", {"why": "its user is disabled", "token": numbers["disabled"]}),
    ]
    assert row(site, ApiToken, numbers["revoked"]).revoked_at is not None


def test_a_wrong_current_password_leaves_a_line(app):
    admin = browser_client(app, UserRole.ADMIN)
    assert admin.submit("/password", current="wrong", password="x" * 20).status_code == 409
    (line,) = [line for line in lines(app) if line.event == "password.refused"]
    assert (line.actor, line.address, line.outcome) == ("admin", "testclient", Outcome.REFUSED)


def test_somebody_elses_upload_leaves_lines_with_its_number_and_owner(site, app):
    owner, other = (browser_client(app, role) for role in (UserRole.READER, UserRole.OPERATOR))
    place = upload(owner).headers["location"]
    for response in (
        other.get(place),
        other.get(f"{place}/picture"),
        other.submit(f"{place}/forget"),
    ):
        assert response.status_code == 404
    browser_client(app, UserRole.ADMIN).submit(f"{place}/forget")
    written = lines(app)
    refused = [line for line in written if line.event == "request.refused"]
    (forgotten,) = [line for line in written if line.event == "upload.forgotten"]
    assert [(line.event, line.actor, line.detail["upload"]) for line in refused] == [
        ("request.refused", "operator", 1)
    ] * 3
    assert forgotten.actor == "admin"
    assert forgotten.detail == {"upload": 1, "user": "reader"}


def test_tables_leave_a_line_each_also_if_refused_or_saved(app):
    viewer, admin = (browser_client(app, role) for role in (UserRole.VIEWER, UserRole.ADMIN))
    shown = [route.split()[1] for route in table_routes(app) if route.startswith("GET")]
    for path in shown:
        assert viewer.get(path).status_code == 403
    admin.get("/admin/study/list")
    admin.get("/admin/study/export/csv")
    written = lines(app)
    refused = [line for line in written if line.event == "request.refused"]
    assert sum(line.times for line in refused) == len(shown)
    assert {(line.actor, line.address) for line in refused} == {("viewer", "testclient")}
    tables = {(line.event, line.detail["table"]) for line in written if "table" in line.detail}
    assert tables == {("tables.seen", "study"), ("tables.exported", "study")}
