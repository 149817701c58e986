"""Authorisation: every route against every role, and against clients not signed in."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import select
from starlette.routing import Mount

from db.ingest import ingest
from db.models import ApiToken, Study, UserRole
from tests.factories.instances import arrival, make_slice
from tests.integration.routes import ADMINISTER, FOR_BROWSERS, NEEDS, OPEN, OPERATE, READ, REVIEW
from tests.integration.web_client import WebClient, browser_client, count, sqlite_only, token_client
from web.app import create_app
from web.auth import cookie_name

pytestmark = sqlite_only

PERMISSIONS = {
    UserRole.VIEWER: {READ},
    UserRole.READER: {READ, REVIEW},
    UserRole.OPERATOR: {READ, OPERATE},
    UserRole.ADMIN: {READ, REVIEW, OPERATE, ADMINISTER},
}
PROTECTED = {route: permission for route, permission in NEEDS.items() if permission is not OPEN}


@pytest.fixture
def app(site) -> FastAPI:
    return create_app(site)


def routes(routes_of, prefix: str = "") -> Iterator[str]:
    """Every method and path, except /static and what has tests of its own: tables, uploads."""
    for context in iter_route_contexts(routes_of):
        path = prefix + context.path
        if path.startswith(("/static", "/admin", "/upload")):
            continue
        if isinstance(context.original_route, Mount):
            yield from routes(context.original_route.routes, path)
        else:
            yield from (f"{method} {path}" for method in context.methods - {"HEAD"})


def test_every_route_has_a_permission_declared(app):
    assert sorted(routes(app.routes)) == sorted(NEEDS)


def send(client: WebClient, route: str):
    """Requests a route with ids that do not exist, so that nothing is changed."""
    method, path = route.split()
    values = {"uid": "1.2.3", "name": "nobody"} | dict.fromkeys(
        ("finding_id", "job", "token", "session_id"), 4711
    )
    path = path.replace(":path", "").format(**values, instance="1.2", frame=0)
    headers = {} if method == "GET" else {"X-CSRF-Token": client.csrf}
    return client.request(method, path, headers=headers)


@pytest.mark.parametrize("known_by", ["nothing", "a made-up cookie", "a made-up token"])
def test_nothing_is_served_without_signing_in(app, known_by):
    client = WebClient(
        app, **({"Authorization": "Bearer lumbar_guessed"} if known_by == "a made-up token" else {})
    )
    if known_by == "a made-up cookie":
        client.cookies.set(cookie_name(client.app.state.site), "guessed")
    for route in PROTECTED:
        response = send(client, route)
        if route.startswith("GET /api/") or not route.startswith("GET"):
            assert response.status_code == 401, route
        else:
            assert response.status_code == 303, route
            assert response.headers["location"].startswith("/sign-in"), route
        assert len(response.content) < 3000, route


@pytest.mark.parametrize("role", UserRole)
@pytest.mark.parametrize("known_by", [browser_client, token_client])
def test_a_role_gets_what_it_may_see_and_403_for_the_rest(app, role, known_by):
    refused = {route for route in PROTECTED if send(known_by(app, role), route).status_code == 403}
    assert refused == {
        route for route, permission in PROTECTED.items() if permission not in PERMISSIONS[role]
    } | (FOR_BROWSERS if known_by is token_client else set())


def table_routes(app: FastAPI) -> list[str]:
    """The routes of the tables, each for the table of studies."""
    (mount,) = [
        context.original_route
        for context in iter_route_contexts(app.routes)
        if context.path == "/admin"
    ]
    templates = [route.split() for route in routes(mount.routes)]
    values = {"identity": "study", "pk": 1, "column_name": "id", "export_type": "csv"}
    return [
        f"{method} /admin{path.replace(':path', '').format(**values)}"
        for method, path in templates
        if path not in ("/login", "/logout") and not path.startswith("/statics")
    ]


def test_the_tables_are_for_administrators_only_and_read_only(app, site):
    table_paths = table_routes(app)
    assert len(table_paths) >= 12
    ingest(site.database, site.store, arrival(make_slice()))
    for route in table_paths:
        method, path = route.split()
        assert WebClient(app).request(method, path).headers["location"].startswith("/sign-in"), (
            route
        )
        for role in set(UserRole) - {UserRole.ADMIN}:
            assert browser_client(app, role).request(method, path).status_code == 403, route
        if method != "GET" or "create" in path or "edit" in path:
            assert (
                browser_client(app, UserRole.ADMIN)
                .request(method, path, params={"pks": "1"})
                .status_code
                >= 400
            ), route
    assert browser_client(app, UserRole.ADMIN).get("/admin/study/list").status_code == 200
    assert count(site, Study) == 1


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "undefined", "idna", "utf-7"])
@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_a_form_is_in_utf_8_and_decoded_by_nothing_else(app, kind, charset):
    """Python's punycode takes hours for a megabyte, which anybody may send."""
    client = WebClient(app)
    body = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na-b\r\n--x--\r\n'
    headers = {"Content-Type": f"{kind}; charset={charset}"}
    assert client.post("/sign-in", content=body, headers=headers).status_code == 415


def test_a_huge_number_in_an_address_is_refused_like_any_other(app):
    viewer = browser_client(app, UserRole.VIEWER)
    headers = {"X-CSRF-Token": viewer.csrf}
    for number in ("4711", "9" * 5000):
        response = viewer.post(f"/jobs/{number}/retry", headers=headers)
        assert response.status_code in (403, 414), number[:10]


def test_sqladmins_own_form_of_signing_in_is_not_shown(app):
    for client in (WebClient(app), browser_client(app, UserRole.ADMIN)):
        response = client.get("/admin/login", follow_redirects=False)
        assert response.status_code == 303
        assert response.headers["location"].endswith("/sign-in")


def test_a_token_revokes_itself(app, site):
    client = token_client(app, UserRole.ADMIN)
    with site.database.reading() as session:
        token = session.scalars(select(ApiToken.id).order_by(ApiToken.id.desc())).first()
    assert client.post(f"/tokens/{token}/revoke", follow_redirects=False).status_code == 303
    assert client.get("/api/v1/worklist").status_code == 401
