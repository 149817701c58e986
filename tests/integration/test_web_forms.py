"""A change is made only by a form or a program of ours: never by another site's page in a browser that is signed in."""

import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Match

from db.models import UserRole
from tests.integration.conftest import ROOT
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
from tests.integration.test_web_auth import NEEDS, OPEN
from tests.integration.web_client import (
    BASE_URL,
    WebClient,
    browser_client,
    sqlite_only,
    token_client,
)
from web.app import create_app

pytestmark = sqlite_only

FORMS = {
    "/password": {"current": "correct horse battery", "password": "another good one"},
    "/sign-out": {},
    f"/studies/{SEVERE_UID}/findings/1/review": {"severity": "severe"},
    f"/studies/{SEVERE_UID}/read": {},
    f"/studies/{REFUSED_UID}/requeue": {},
    f"/studies/{ARRIVING_UID}/complete": {},
    f"/studies/{SEVERE_UID}/delete": {"reason": "asked by the patient"},
    f"/jobs/{DEAD_JOB}/retry": {},
    f"/jobs/{WAITING_JOB}/cancel": {},
    f"/jobs/{DELIVERED_JOB}/resend": {},
    "/destinations/pacs/echo": {},
    "/users": {"name": "ben", "password": "a good long one", "role": "viewer"},
    "/users/operator": {"role": "viewer"},
    "/tokens": {"user": "operator", "name": "ris", "scopes": "read"},
    "/tokens/1/revoke": {},
}
BODIES = {
    f"/api/v1/studies/{SEVERE_UID}/read": {"read": True},
    "/api/v1/findings/1/reviews": {"severity": "severe"},
    f"/api/v1/studies/{REFUSED_UID}/requeue": None,
    f"/api/v1/studies/{ARRIVING_UID}/complete": None,
    f"/api/v1/jobs/{DEAD_JOB}/retry": None,
    f"/api/v1/jobs/{WAITING_JOB}/cancel": None,
    f"/api/v1/jobs/{DELIVERED_JOB}/resend": None,
}


@pytest.fixture
def admin(site) -> WebClient:
    add_studies(site)
    app = create_app(site)
    token_client(app, UserRole.OPERATOR)
    return browser_client(app, UserRole.ADMIN)


def change(visitor: WebClient, path: str, csrf: str | None, **headers: str):
    """Asks for a change as a page of ours would, but for the token and the headers."""
    if path in FORMS:
        given = {} if csrf is None else {"csrf_token": csrf}
        return visitor.post(path, data=FORMS[path] | given, headers=headers)
    given = {} if csrf is None else {"X-CSRF-Token": csrf}
    method = "PUT" if path.endswith("/read") else "POST"
    return visitor.request(method, path, json=BODIES[path], headers=given | headers)


def test_every_route_that_changes_something_is_here(admin):
    changing = {
        route
        for route, permission in NEEDS.items()
        if not route.startswith("GET") and permission is not OPEN
    }
    routes = [context.original_route for context in iter_route_contexts(admin.app.routes)]
    for path in [*FORMS, *BODIES]:
        method = "PUT" if path in BODIES and path.endswith("/read") else "POST"
        scope = {"type": "http", "method": method, "path": path}
        (found,) = [route.path for route in routes if route.matches(scope)[0] is Match.FULL]
        changing.remove(f"{method} {found}")
    assert not changing


@pytest.mark.parametrize("whose", ["none", "a made-up one", "another session's"])
def test_without_the_forms_own_token_nothing_changes(site, admin, whose):
    other = browser_client(admin.app, UserRole.ADMIN)
    token = {"none": None, "a made-up one": "guessed", "another session's": other.csrf}[whose]
    before = all_rows(site)
    answers = {path: change(admin, path, token).status_code for path in [*FORMS, *BODIES]}
    assert answers == dict.fromkeys(answers, 403)
    assert all_rows(site) == before


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
def test_from_another_sites_page_nothing_changes_and_nobody_signs_in(site, admin, headers):
    before = all_rows(site)
    answers = {
        path: change(admin, path, admin.csrf, **headers).status_code for path in [*FORMS, *BODIES]
    }
    assert answers == dict.fromkeys(answers, 403)
    assert (
        WebClient(admin.app).post("/sign-in", data={"name": "a"}, headers=headers).status_code
        == 403
    )
    assert all_rows(site) == before


def test_with_the_token_and_from_our_own_page_it_changes(site, admin):
    for path in (f"/studies/{SEVERE_UID}/read", f"/api/v1/studies/{REFUSED_UID}/requeue"):
        before = all_rows(site)
        assert (
            change(
                admin, path, admin.csrf, Origin=BASE_URL, **{"Sec-Fetch-Site": "same-origin"}
            ).status_code
            < 400
        )
        assert all_rows(site) != before


def test_a_token_of_a_form_does_not_count_in_the_address(site, admin):
    assert admin.post(f"/studies/{SEVERE_UID}/read?csrf_token={admin.csrf}").status_code == 403


def test_a_program_needs_no_forms_token(site, admin):
    program = token_client(admin.app, UserRole.ADMIN)
    answers = {path: change(program, path, None).status_code for path in BODIES}
    assert set(answers.values()) == {200, 201}, answers


def test_a_cookie_does_not_count_beside_a_program_s_token_that_is_no_good(site, admin):
    answer = admin.get("/api/v1/worklist", headers={"Authorization": "Bearer lumbar_guessed"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ROOT not in answer.text
