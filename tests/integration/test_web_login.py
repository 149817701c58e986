"""Signing in, and what a cookie and a token permit, and for how long."""

import re
from datetime import UTC, datetime, timedelta
from html import escape

import pytest
from sqlalchemy import select

from db import accounts, api_tokens
from db.attempts import HERE
from db.models import Permission, UserRole, WebSession
from db.sessions import IDLE_TIMEOUT, MAX_SESSION
from tests.factories.accounts import OPERATOR, PASSWORD, add_user
from tests.integration.site_with_studies import SEVERE_UID, add_studies
from tests.integration.web_client import (
    BASE_URL,
    WebClient,
    browser_client,
    sqlite_only,
    token_client,
)
from web.app import create_app
from web.auth import cookie_name


@pytest.fixture
def app(site):
    return create_app(site)


@pytest.fixture
def anna(app, site) -> WebClient:
    """Anna's browser, before she signs in."""
    add_user(site.database, "anna", UserRole.ADMIN)
    return WebClient(app)


def sign_in(client, **form):
    return client.post("/sign-in", data={"name": "anna", "password": PASSWORD} | form)


def test_without_users_the_page_explains_how_to_add_one(app):
    response = WebClient(app).get("/sign-in")
    assert "lumbar users add NAME --role admin" in response.text
    assert "<input" not in response.text


def test_the_right_password_leads_to_the_requested_page(app, anna):
    refused = anna.get("/studies?q=mul&state=failed")
    assert refused.status_code == 303
    page = anna.get(refused.headers["location"])
    assert 'name="to" value="/studies?q=mul&amp;state=failed"' in page.text
    response = sign_in(anna, to="/studies?q=mul&state=failed")
    assert (response.status_code, response.headers["location"]) == (
        303,
        "/studies?q=mul&state=failed",
    )
    assert anna.get("/").status_code == 200


def cookies_set(response) -> list[list[str]]:
    """The attributes of each cookie that a response sets."""
    return [line.lower().split("; ") for line in response.headers.get_list("set-cookie")]


@sqlite_only
def test_the_cookies_are_httponly_samesite_and_over_https_secure(app, anna):
    session, known = cookies_set(sign_in(anna))
    for attributes in (session, known):
        assert {"httponly", "samesite=lax", "path=/"} <= set(attributes)
        assert "secure" not in attributes
    assert not any(part.startswith(("domain", "expires", "max-age")) for part in session)
    assert "max-age=15552000" in known
    https = WebClient(app)
    https.base_url = BASE_URL.replace("http", "https")
    assert all("secure" in attributes for attributes in cookies_set(sign_in(https)))
    assert https.get("/sign-in").headers["strict-transport-security"]


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example",
        "///evil.example",
        "https://evil.example",
        "http:evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/\u202e/evil.example",
        "javascript:alert(1)",
        "//[",
        "http://[",
        "evil.example",
        "",
    ],
)
@sqlite_only
def test_signing_in_never_leads_to_another_host(app, anna, address):
    page = anna.get("/sign-in", params={"to": address})
    assert (page.status_code, 'name="to" value="/"' in page.text) == (200, True)
    response = sign_in(anna, to=address)
    assert (response.status_code, response.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "form",
    [
        {"password": "wrong"},
        {"name": "nobody"},
        {"name": ""},
        {"password": "\x00" * 20},
        {"password": "x" * 5000},
    ],
)
def test_a_wrong_name_or_password_is_refused_with_the_same_message_and_no_cookie(app, anna, form):
    response = sign_in(anna, **form)
    assert response.status_code == 401
    assert "The name or the password is wrong." in response.text
    assert "set-cookie" not in response.headers


@sqlite_only
def test_the_form_is_shown_again_with_its_input_escaped(app, anna):
    name = '"><script>alert(1)</script>'
    response = sign_in(anna, name=name, to='/"><script>')
    assert "<script>" not in response.text
    assert escape(name).replace("&quot;", "&#34;") in response.text


def test_too_many_attempts_are_refused_and_the_page_says_for_how_long(app, anna):
    statuses = [sign_in(anna, password="wrong").status_code for _ in range(HERE.at_once)]
    assert statuses == [401] * HERE.at_once
    response = sign_in(anna)
    assert response.status_code == 429
    assert "Too many attempts; try again in 1 minute." in response.text
    assert 0 < int(response.headers["retry-after"]) <= HERE.each_s
    assert "set-cookie" not in response.headers


@sqlite_only
def test_signing_in_again_makes_another_cookie(app, anna, site):
    name = cookie_name(site)
    first, second = (sign_in(anna).cookies[name] for _ in range(2))
    assert first != second


@sqlite_only
def test_signing_out_ends_only_this_browsers_session(app, site):
    browser, other = browser_client(app, UserRole.READER), browser_client(app, UserRole.READER)
    name = cookie_name(site)
    old_cookie = browser.cookies[name]
    response = browser.submit("/sign-out")
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert response.headers["clear-site-data"] == '"cache", "storage"'
    assert f'{name}=""; ' in response.headers["set-cookie"]
    browser.cookies.set(name, old_cookie)
    assert browser.get("/").status_code == 303
    assert other.get("/").status_code == 200


@pytest.mark.parametrize(
    ("column", "age"), [("last_used_at", IDLE_TIMEOUT), ("created_at", MAX_SESSION)]
)
@sqlite_only
def test_an_old_session_has_to_sign_in_again(app, site, column, age):
    browser = browser_client(app, UserRole.READER)
    assert browser.get("/").status_code == 200
    with site.database.transaction() as session:
        setattr(
            session.scalars(select(WebSession)).one(),
            column,
            datetime.now(UTC) - age - timedelta(seconds=1),
        )
    assert browser.get("/").status_code == 303
    assert browser.get("/api/v1/worklist").status_code == 401
    # A script is not redirected to the sign-in page.
    assert browser.get("/", headers={"Sec-Fetch-Dest": "empty"}).status_code == 401


@sqlite_only
def test_viewing_a_page_keeps_the_session_open(app, site):
    browser = browser_client(app, UserRole.READER)
    with site.database.transaction() as session:
        row = session.scalars(select(WebSession)).one()
        row.last_used_at = before = datetime.now(UTC) - timedelta(minutes=50)
    assert browser.get("/").status_code == 200
    with site.database.reading() as session:
        assert session.scalars(select(WebSession.last_used_at)).one() > before + timedelta(
            minutes=49
        )


def test_a_page_that_refreshes_itself_does_not_keep_the_session_open(app, site):
    browser = browser_client(app, UserRole.READER)
    with site.database.transaction() as session:
        row = session.scalars(select(WebSession)).one()
        row.last_used_at = before = datetime.now(UTC) - timedelta(minutes=50)
    assert browser.get("/", headers={"X-Renew": "1"}).status_code == 200
    with site.database.reading() as session:
        assert session.scalars(select(WebSession.last_used_at)).one() == before


def test_changing_ones_password_ends_every_session_and_needs_a_browser(app, anna, site):
    sign_in(anna)
    form = {"csrf_token": _csrf(anna), "current": PASSWORD, "password": "another good one"}
    program = by_token_of(app, "anna")
    assert program.post("/password", data=form).status_code == 403
    assert anna.post("/password", data=form | {"password": "short"}).status_code == 409
    assert anna.post("/password", data=form | {"current": "a guess at it"}).status_code == 409
    response = anna.post("/password", data=form)
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert anna.get("/").status_code == 303
    assert sign_in(anna).status_code == 401
    assert sign_in(anna, password="another good one").status_code == 303


def _csrf(browser):
    return browser.get("/me").text.partition('name="csrf_token" value="')[2].partition('"')[0]


def by_token_of(app, name):
    site = app.state.site
    with site.database.transaction() as session:
        token = api_tokens.new_token(
            session, accounts.user_named(session, name), "ris", {Permission.READ}, 1, OPERATOR
        )
    return WebClient(app, Authorization=f"Bearer {token}")


@sqlite_only
def test_a_token_allows_only_its_scopes_on_pages_and_in_the_api(app, site):
    add_studies(site)
    program = token_client(app, UserRole.ADMIN, {Permission.READ})
    assert program.get(f"/api/v1/studies/{SEVERE_UID}").status_code == 200
    assert program.get("/").status_code == 200
    for path in ("/jobs", "/users", "/audit", "/api/v1/jobs"):
        assert program.get(path).status_code == 403
    for path in (f"/api/v1/studies/{SEVERE_UID}/requeue", "/api/v1/findings/1/reviews"):
        assert program.post(path, json={"severity": "severe"}).status_code == 403
    assert program.get("/admin/").status_code in (303, 403)


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Basic YTpi", "bearer lumbar_x", "Bearer \x7f", "lumbar_x", ""]
)
@sqlite_only
def test_an_invalid_token_is_401(app, header):
    response = WebClient(app, Authorization=header).get("/api/v1/worklist")
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"


FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
)
EDGE = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36 Edg/130.0.0.0"
)


def test_users_see_where_they_are_signed_in_and_end_what_they_do_not_know(app, anna):
    sign_in(anna)
    others = [WebClient(app, **{"User-Agent": agent}) for agent in (FIREFOX, SAFARI, EDGE, "x")]
    for other in others:
        sign_in(other)
    page = anna.get("/me").text
    for name in ("Firefox on Windows", "Safari on iPhone", "Edge on macOS", "an unknown system"):
        assert name in page
    assert page.count("this browser") == 1
    assert page.count("testclient") >= 5
    (firefox,) = re.findall(r'action="(/sessions/\d+/end)">[^/]*Firefox on Windows', page)
    assert anna.post(firefox, data={"csrf_token": _csrf(anna)}).status_code == 303
    assert [other.get("/").status_code for other in others] == [303, 200, 200, 200]
    stranger = browser_client(app, UserRole.VIEWER)
    (own,) = re.findall(r'action="(/sessions/\d+/end)">[^/]*Safari on iPhone', page)
    assert stranger.submit(own).status_code == 404
    assert anna.post("/sessions/end-others", data={"csrf_token": _csrf(anna)}).status_code == 303
    assert [other.get("/").status_code for other in others] == [303] * 4
    assert anna.get("/").status_code == 200
    assert stranger.get("/").status_code == 200


@sqlite_only
def test_signing_in_again_ends_the_browsers_old_session(app, anna, site):
    name = cookie_name(site)
    old = sign_in(anna).cookies[name]
    sign_in(anna)
    assert anna.get("/").status_code == 200
    stolen = WebClient(app)
    stolen.cookies.set(name, old)
    assert stolen.get("/").status_code == 303


@pytest.mark.parametrize(("form", "status"), [({}, 401), ({"keep_tokens": "true"}, 200)])
@sqlite_only
def test_a_new_password_revokes_ones_tokens_unless_told_otherwise(app, anna, form, status):
    sign_in(anna)
    program = by_token_of(app, "anna")
    change = {"csrf_token": _csrf(anna), "current": PASSWORD, "password": "another good one"}
    assert anna.post("/password", data=change | form).status_code == 303
    assert program.get("/api/v1/worklist").status_code == status


@sqlite_only
def test_a_known_browser_gets_in_while_others_guess(app, anna):
    sign_in(anna)
    stranger = WebClient(app)
    while sign_in(stranger, password="wrong").status_code == 401:
        pass
    assert sign_in(stranger).status_code == 429
    assert sign_in(anna).status_code == 303
