"""Behind a reverse proxy: which requests are from our own page, and the path prefix."""

from dataclasses import replace

import pytest
from fastapi import FastAPI

from db.context import SiteContext
from db.models import UserRole
from lumbar.errors import WrongSetting
from tests.factories.accounts import PASSWORD, add_user
from tests.integration.site_with_studies import SEVERE_UID, add_studies, open_site
from tests.integration.web_client import WebClient, browser_client, sqlite_only
from web.app import create_app
from web.auth import cookie_name

pytestmark = sqlite_only

PUBLIC = "http://triage.example"


def app_of(site: SiteContext, **settings: object) -> FastAPI:
    return create_app(replace(site, settings=site.settings.model_copy(update=settings)))


def sign_in(app: FastAPI, **headers: str):
    """Of a browser that opened ``PUBLIC``, through a proxy that says ``headers``."""
    site: SiteContext = app.state.site
    add_user(site.database, "anna", UserRole.ADMIN)
    return WebClient(app).post(
        "/sign-in", data={"name": "anna", "password": PASSWORD}, headers=headers
    )


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {"Origin": PUBLIC, "Host": "triage.example"}),
        ({}, {"Origin": PUBLIC, "X-Forwarded-Host": "triage.example"}),
        ({}, {"Origin": PUBLIC, "X-Forwarded-Host": "triage.example, 10.0.0.1"}),
        ({}, {"Origin": "https://triage.example", "Sec-Fetch-Site": "same-origin"}),
        ({"web_origin": PUBLIC}, {"Origin": PUBLIC}),
    ],
)
def test_our_own_page_may_sign_in_behind_a_proxy(site, settings, headers):
    assert sign_in(app_of(site, **settings), **headers).status_code == 303


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {"Origin": PUBLIC}),
        ({"web_origin": PUBLIC}, {"Origin": "https://triage.example"}),
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
