"""Behind a reverse proxy: which requests are from our own page, and the path prefix."""

import socket
from dataclasses import replace

import pytest
from fastapi import FastAPI

from db import accounts
from db.attempts import HERE
from db.context import SiteContext
from db.models import UserRole
from lumbar.errors import WrongSetting
from lumbar.settings import Settings
from tests.factories.accounts import PASSWORD, add_user
from tests.integration.site_with_studies import SEVERE_UID, add_studies, open_site
from tests.integration.web_client import WebClient, browser_client, sqlite_only
from web.app import create_app
from web.auth import cookie_name

pytestmark = sqlite_only

PUBLIC = "http://triage.example"


PROXY, HTTPS = "192.0.2.1", "https://triage.example"


def app_of(site: SiteContext, **settings: object) -> FastAPI:
    checked = Settings(**site.settings.model_dump(exclude_unset=True) | settings)
    return create_app(replace(site, settings=checked))


def sign_in(app: FastAPI, **headers: str):
    """Of a browser that opened ``PUBLIC``, through a proxy that says ``headers``."""
    site: SiteContext = app.state.site
    with site.database.reading() as session:
        new = not accounts.has_users(session)
    if new:
        add_user(site.database, "anna", UserRole.ADMIN)
    return WebClient(app).post(
        "/sign-in", data={"name": "anna", "password": PASSWORD}, headers=headers
    )


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"web_hosts": "triage.example"}, {"Origin": PUBLIC, "Host": "triage.example"}),
        ({}, {"Origin": PUBLIC, "X-Forwarded-Host": "triage.example"}),
        ({}, {"Origin": PUBLIC, "X-Forwarded-Host": "triage.example, 10.0.0.1"}),
        (
            {},
            {
                "Origin": HTTPS,
                "X-Forwarded-Host": "triage.example",
                "X-Forwarded-Proto": "https",
            },
        ),
        ({}, {"Origin": HTTPS, "Sec-Fetch-Site": "same-origin"}),
        ({"web_origin": PUBLIC}, {"Origin": PUBLIC}),
    ],
)
def test_our_own_page_may_sign_in_behind_a_proxy(site, settings, headers):
    assert sign_in(app_of(site, **settings), **headers).status_code == 303


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {"Origin": PUBLIC}),
        ({"web_origin": PUBLIC}, {"Origin": HTTPS}),
        ({"web_origin": HTTPS}, {"Origin": PUBLIC}),
        ({"web_origin": HTTPS}, {"Origin": PUBLIC, "Host": "triage.example"}),
        ({"web_origin": HTTPS}, {"Origin": PUBLIC, "X-Forwarded-Host": "triage.example"}),
        (
            {},
            {
                "Origin": PUBLIC,
                "X-Forwarded-Host": "triage.example",
                "X-Forwarded-Proto": "https",
            },
        ),
        ({}, {"Origin": HTTPS, "X-Forwarded-Host": "triage.example"}),
        ({}, {"Origin": "triage.example", "X-Forwarded-Host": "triage.example"}),
        ({"web_origin": PUBLIC}, {"Origin": f"{PUBLIC}.evil.example"}),
        ({"web_origin": PUBLIC}, {"Origin": "null"}),
        ({"web_origin": PUBLIC}, {"Origin": PUBLIC, "Sec-Fetch-Site": "cross-site"}),
        ({}, {"Origin": "http://evil.example", "X-Forwarded-Host": "triage.example"}),
        ({}, {"Origin": "null", "X-Forwarded-Host": ""}),
        ({}, {"Origin": "", "X-Forwarded-Host": ","}),
    ],
)
def test_any_other_page_may_not_and_the_operator_learns_what_to_set(site, settings, headers):
    response = sign_in(app_of(site, **settings), **headers)
    assert (response.status_code, "set-cookie" in response.headers) == (403, False)
    assert ("LUMBAR_WEB_ORIGIN" in response.text) == ("Sec-Fetch-Site" not in headers)


def peer(app: FastAPI, address: str, server: str = "127.0.0.1") -> WebClient:
    """A client at an address, connected to one of ours."""

    async def connected(scope, receive, send):
        scope |= {"client": (address, 50_000), "server": (server, 8080)}
        await app(scope, receive, send)

    connected.state = app.state
    return WebClient(connected)


@pytest.mark.parametrize("proxies", [PROXY, f"10.0.0.0/8, {PROXY}", "192.0.2.0/24", "2001:db8::1"])
def test_with_a_proxy_nobody_else_is_answered(site, proxies):
    app = app_of(site, web_proxy=proxies)
    known = "2001:db8::1" if ":" in proxies else PROXY
    for address in (known, *([] if ":" in proxies else [f"::ffff:{PROXY}"])):
        assert peer(app, address).get("/sign-in").status_code == 200
    for address in ("127.0.0.1", "198.51.100.1", "::1", "::ffff:198.51.100.1", "testclient"):
        stranger = peer(app, address)
        for path in (
            "/",
            "/sign-in",
            "/static/page.css",
            "/api/v1/worklist",
            "/metrics",
            "/admin/",
        ):
            response = stranger.get(path, headers={"X-Forwarded-For": known})
            assert response.status_code == 403, path
        assert stranger.post("/sign-in", data={"name": "anna"}).status_code == 403
        # An orchestrator may ask whether the page works.
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/readyz", headers={"Host": "10.1.2.3:8080"}).status_code == 200


def test_with_a_proxy_attempts_are_counted_by_the_clients_that_it_names(site):
    app = app_of(site, web_proxy=PROXY)
    sign_in_from = {"data": {"name": "anna", "password": "wrong"}}
    for address, expected in (("10.0.0.1", 429), ("10.0.0.2", 401)):
        headers = {"X-Forwarded-For": f"10.9.9.9, {address}"}
        for _ in range(HERE.at_once if expected == 429 else 0):
            peer(app, PROXY).post("/sign-in", headers=headers, **sign_in_from)
        response = peer(app, PROXY).post("/sign-in", headers=headers, **sign_in_from)
        assert response.status_code == expected


@pytest.mark.parametrize("proto", [None, "https", "http"])
def test_with_a_proxy_every_cookie_is_secure_whatever_it_says(site, proto):
    app = app_of(site, web_proxy=PROXY, web_hosts="triage.example")
    add_user(site.database, "anna", UserRole.ADMIN)
    headers = {"Origin": HTTPS, "Host": "triage.example"}
    client = peer(app, PROXY)
    response = client.post(
        "/sign-in",
        data={"name": "anna", "password": PASSWORD},
        headers=headers | ({"X-Forwarded-Proto": proto} if proto else {}),
    )
    assert response.status_code == 303
    cookies = response.headers.get_list("set-cookie")
    assert len(cookies) == 2
    assert all("; secure" in cookie.lower() for cookie in cookies)
    assert response.headers["strict-transport-security"]


FORGED = [
    "evil.example",
    "127.0.0.1.evil.example",
    "203.0.113.1",
    "evil.example:8080",
    "localhost.evil.example",
    "[2001:db8::666]",
    "evil.example@127.0.0.1",
    "127.0.0.1/evil.example",
    "127.0.0.1, evil.example",
    "triage.example.",
    "",
]


@pytest.mark.parametrize("host", FORGED)
def test_a_host_that_is_not_ours_is_refused(site, host):
    app = app_of(site, web_hosts="triage.example")
    client = browser_client(app, UserRole.ADMIN)
    for path in ("/", "/sign-in", "/admin/study/list", "/admin", "/studies/", "/static/page.css"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == 421, path
        assert "LUMBAR_WEB_HOSTS" in response.text
        assert "location" not in response.headers


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:9", "127.0.0.1", "127.0.0.2:8080", "[::1]:8080", "LOCALHOST"),
        *("triage.example", "Triage.Example:443", "page.example", socket.gethostname()),
        *("[2001:db8::7]", "[2001:db8::7]:8080"),
    ],
)
def test_a_name_or_address_of_ours_is_answered(site, host):
    app = app_of(
        site, web_hosts=["triage.example", "2001:db8::7"], web_origin="http://page.example"
    )
    assert WebClient(app).get("/sign-in", headers={"Host": host}).status_code == 200


def test_the_address_connected_to_is_answered(site):
    app = app_of(site)
    client = peer(app, "198.51.100.1", server="192.0.2.80")
    assert client.get("/sign-in", headers={"Host": "192.0.2.80:8080"}).status_code == 200
    assert client.get("/sign-in", headers={"Host": "192.0.2.81:8080"}).status_code == 421


@pytest.mark.parametrize("settings", [{}, {"web_origin": HTTPS}])
@pytest.mark.parametrize("forged", ["Host", "X-Forwarded-Host", "Forwarded", "X-Forwarded-Server"])
def test_no_redirect_and_no_link_names_a_host(site, settings, forged):
    """Neither one of ours, which may not be the browser's, nor one that was made up."""
    app = app_of(site, web_hosts="triage.example", **settings)
    client = browser_client(app, UserRole.ADMIN)
    value = {"Host": "triage.example", "Forwarded": "host=evil.example"}.get(forged, "evil.example")
    for path in ("/studies/", "/admin", "/upload/", "/admin/study/list", "/admin/", "/users", "/"):
        response = client.get(path, headers={forged: value})
        assert response.headers.get("location", "/").startswith("/"), path
        assert not response.headers.get("location", "/").startswith("//"), path
        assert "evil.example" not in response.text
        assert "triage.example" not in response.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("web_proxy", "proxy.example"),
        ("web_proxy", "*"),
        ("web_proxy", "10.0.0.1/8"),
        ("web_hosts", "https://triage.example"),
        ("web_hosts", "triage.example:443"),
        ("web_hosts", "*"),
    ],
)
def test_what_names_no_proxy_or_host_is_refused_at_the_start(site, name, value):
    with pytest.raises(ValueError, match=name):
        app_of(site, **{name: value})


def test_the_cookie_is_secure_where_browsers_use_https_whatever_the_proxy_says(site):
    app = app_of(site, web_origin="https://triage.example")
    response = sign_in(app, Origin="https://triage.example")
    assert "secure" in response.headers["set-cookie"].lower()
    assert response.headers["strict-transport-security"]


def test_instances_have_cookies_of_their_own_which_last(site, tmp_path):
    other = open_site(tmp_path / "other")
    assert cookie_name(site) != cookie_name(other)
    assert cookie_name(replace(site)) == cookie_name(site)  # as another process, or after a restart


@pytest.mark.parametrize("path", ["/triage", ""], ids=["kept", "stripped"])
def test_under_a_prefix_addresses_have_it_in_and_out(site, path):
    add_studies(site)
    app = app_of(site, web_root="/triage")
    anonymous = WebClient(app).get(f"{path}/studies?q=a")
    assert anonymous.headers["location"] == "/triage/sign-in?to=%2Fstudies%3Fq%3Da"
    client = browser_client(app, UserRole.ADMIN)
    done = client.submit(f"{path}/studies/{SEVERE_UID}/read")
    assert done.headers["location"] == "/triage/?done=read"
    assert client.get(f"{path}/studies/").headers["location"] == "/triage/studies"
    assert client.get(f"{path}/admin").headers["location"] == "/triage/admin/"
    assert f'href="/triage/studies/{SEVERE_UID}"' in client.get(f"{path}/studies").text
    assert client.get(f"{path}/static/page.css").status_code == 200
    missing = client.get(f"{path}/api/v1/studies/1.2")
    assert missing.headers["content-type"] == "application/problem+json"
    response = client.submit(f"{path}/sign-out")
    assert "path=/triage;" in response.headers["set-cookie"].lower()
    assert client.get("/triage2/studies").status_code == 404


def test_the_prefix_itself_is_the_worklist(site):
    app = app_of(site, web_root="/a/b")
    assert browser_client(app, UserRole.READER).get("/a/b").status_code == 200


def test_an_internal_error_under_a_prefix_is_a_problem_for_programs(site, monkeypatch):
    app = app_of(site, web_root="/triage")
    client = browser_client(app, UserRole.ADMIN)
    client._transport.raise_server_exceptions = False
    monkeypatch.setattr("web.api.worklist.worklist", lambda *_, **__: 1 / 0)
    response = client.get("/triage/api/v1/worklist")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("root", ["/studies", "/api/x", "/admin", "/static", "/healthz"])
def test_a_prefix_that_an_address_begins_with_is_refused(site, root):
    with pytest.raises(WrongSetting, match="LUMBAR_WEB_ROOT"):
        app_of(site, web_root=root)
