"""CSRF protection: another site's page cannot change anything in a signed-in browser."""

import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Match

from db.models import UserRole
from tests.factories.instances import ROOT, digest_of, make_slice
from tests.factories.quarantine import send, send_corrected
from tests.integration.routes import NEEDS, OPEN
from tests.integration.site_with_studies import (
    ARRIVING_UID,
    DEAD_JOB,
    DELIVERED_JOB,
    REFUSED_UID,
    SEVERE_UID,
    WAITING_JOB,
    add_studies,
    all_rows,
)
from tests.integration.web_client import (
    BASE_URL,
    WebClient,
    browser_client,
    sqlite_only,
    token_client,
)
from web.app import create_app

pytestmark = sqlite_only

CORRECTED = 5  # number of a study
CORRECTED_UID = f"{ROOT}.{CORRECTED}"
CONTRADICTION = {"study": CORRECTED, "number": 2, "fill": 99}
# the instance's id in the table, and the beginning of its digest
CONTRADICTING = f"9-{digest_of(make_slice(**CONTRADICTION))[:8]}"

FORMS = {
    "/password": {"current": "correct horse battery", "password": "another good one"},
    "/sign-out": {},
    "/sessions/1/end": {},
    "/sessions/end-others": {},
    f"/studies/{SEVERE_UID}/findings/1/review": {"severity": "severe"},
    f"/studies/{SEVERE_UID}/read": {},
    f"/studies/{REFUSED_UID}/requeue": {},
    f"/studies/{ARRIVING_UID}/complete": {},
    f"/studies/{CORRECTED_UID}/correct": {},
    f"/quarantine/{CONTRADICTING}/release": {},
    f"/quarantine/{CONTRADICTING}/drop": {},
    f"/studies/{SEVERE_UID}/delete": {"reason": "asked by the patient"},
    f"/jobs/{DEAD_JOB}/retry": {},
    f"/jobs/{WAITING_JOB}/cancel": {},
    f"/jobs/{DELIVERED_JOB}/resend": {},
    "/destinations/pacs/echo": {},
    "/destinations/archive/reroute": {"to": "pacs"},
    "/destinations/pacs/retry": {},
    "/destinations/pacs/cancel": {},
    "/users": {"name": "ben", "password": "a good long one", "role": "viewer"},
    "/users/operator": {"role": "viewer"},
    "/users/operator/password": {"password": "a good long one"},
    "/tokens": {"user": "operator", "name": "ris", "scopes": "read"},
    "/tokens/1/revoke": {},
}
BODIES = {
    f"/api/v1/studies/{SEVERE_UID}/read": {"read": True},
    "/api/v1/findings/1/reviews": {"severity": "severe"},
    f"/api/v1/studies/{REFUSED_UID}/requeue": None,
    f"/api/v1/studies/{ARRIVING_UID}/complete": None,
    f"/api/v1/quarantined/{CONTRADICTING}/release": None,
    f"/api/v1/studies/{CORRECTED_UID}/correct": None,
    f"/api/v1/quarantined/{CONTRADICTING}": None,
    f"/api/v1/jobs/{DEAD_JOB}/retry": None,
    f"/api/v1/jobs/{WAITING_JOB}/cancel": None,
    f"/api/v1/jobs/{DELIVERED_JOB}/resend": None,
    "/api/v1/destinations/archive/reroute": {"to": "pacs"},
    "/api/v1/destinations/pacs/retry": None,
    "/api/v1/destinations/pacs/cancel": None,
}


def method_of(path: str) -> str:
    """The method of an API's change."""
    if path.endswith("/read"):
        return "PUT"
    return "DELETE" if path.endswith(f"/quarantined/{CONTRADICTING}") else "POST"


@pytest.fixture
def admin(site) -> WebClient:
    add_studies(site)
    send_corrected(site.database, site.store, CORRECTED)
    send(site.database, site.store, **CONTRADICTION)
    app = create_app(site)
    token_client(app, UserRole.OPERATOR)
    return browser_client(app, UserRole.ADMIN)


def unaudited(site) -> dict[str, list[tuple]]:
    """All rows but those of the audit trail, where refusals are recorded soon after."""
    return {name: rows for name, rows in all_rows(site).items() if name != "audit_event"}


def change(client: WebClient, path: str, csrf: str | None, **headers: str):
    """Requests a change as a page does, except for the token and the headers."""
    if path in FORMS:
        token = {} if csrf is None else {"csrf_token": csrf}
        return client.post(path, data=FORMS[path] | token, headers=headers)
    token = {} if csrf is None else {"X-CSRF-Token": csrf}
    return client.request(method_of(path), path, json=BODIES[path], headers=token | headers)


def test_every_route_that_changes_something_is_covered(admin):
    changing = {
        route
        for route, permission in NEEDS.items()
        if not route.startswith("GET") and permission is not OPEN
    }
    routes = [context.original_route for context in iter_route_contexts(admin.app.routes)]
    for path in [*FORMS, *BODIES]:
        method = method_of(path) if path in BODIES else "POST"
        scope = {"type": "http", "method": method, "path": path}
        (template,) = [route.path for route in routes if route.matches(scope)[0] is Match.FULL]
        changing.remove(f"{method} {template}")
    assert not changing


@pytest.mark.parametrize("case", ["none", "a made-up one", "another session's"])
def test_without_the_sessions_token_nothing_changes(site, admin, case):
    other = browser_client(admin.app, UserRole.ADMIN)
    token = {"none": None, "a made-up one": "guessed", "another session's": other.csrf}[case]
    before = unaudited(site)
    statuses = {path: change(admin, path, token).status_code for path in [*FORMS, *BODIES]}
    assert statuses == dict.fromkeys(statuses, 403)
    assert unaudited(site) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_from_another_sites_page_nothing_changes_and_sign_in_is_refused(site, admin, headers):
    before = unaudited(site)
    statuses = {
        path: change(admin, path, admin.csrf, **headers).status_code for path in [*FORMS, *BODIES]
    }
    assert statuses == dict.fromkeys(statuses, 403)
    assert (
        WebClient(admin.app).post("/sign-in", data={"name": "a"}, headers=headers).status_code
        == 403
    )
    assert unaudited(site) == before


def test_with_the_token_and_from_our_own_page_the_change_is_made(site, admin):
    for path in (f"/studies/{SEVERE_UID}/read", f"/api/v1/studies/{REFUSED_UID}/requeue"):
        before = unaudited(site)
        assert (
            change(
                admin, path, admin.csrf, Origin=BASE_URL, **{"Sec-Fetch-Site": "same-origin"}
            ).status_code
            < 400
        )
        assert unaudited(site) != before


def test_a_csrf_token_in_the_address_does_not_count(site, admin):
    assert admin.post(f"/studies/{SEVERE_UID}/read?csrf_token={admin.csrf}").status_code == 403


def test_a_program_needs_no_csrf_token(site, admin):
    program = token_client(admin.app, UserRole.ADMIN)
    statuses = {path: change(program, path, None).status_code for path in BODIES}
    assert set(statuses.values()) == {200, 201}, statuses


def test_a_cookie_does_not_count_beside_an_invalid_token(site, admin):
    response = admin.get("/api/v1/worklist", headers={"Authorization": "Bearer lumbar_guessed"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert ROOT not in response.text
