"""The page behind nginx, with its default headers and under a path; two instances on one host."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from db.models import UserRole
from tests.browser.served import WIDE, new_site, serving
from tests.browser.site_with_images import add_studies
from tests.factories.accounts import PASSWORD
from tests.nginx import Nginx
from web.auth import known_cookie_name

pytestmark = pytest.mark.slow

PREFIX = "/triage"
ADDRESSES = """() => [...document.querySelectorAll("[href], [src], [action]")]
  .map(e => e.getAttribute("href") ?? e.getAttribute("src") ?? e.getAttribute("action"))"""


@contextmanager
def browsing(chromium, root: str, complaints: list[str]) -> Iterator[Page]:
    """A page of a new browser; failed requests, and messages on the console, are complaints."""
    context = chromium.new_context(base_url=root, viewport=WIDE)
    context.set_default_timeout(20_000)
    context.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    context.on(
        "response",
        lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None,
    )
    context.on(
        "request",
        lambda r: (
            complaints.append(r.url) if not r.url.startswith((root, "data:", "blob:")) else None
        ),
    )
    yield context.new_page()
    context.close()


def sign_in(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Name").fill(UserRole.ADMIN.value)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_the_page_works_behind_nginx_as_it_is_by_default(chromium, tmp_path, complaints, tls):
    with serving(new_site(tmp_path / "home")) as served:
        proxy = Nginx(tmp_path / "nginx", f"location / {{ proxy_pass {served.root}; }}", tls)
        with proxy, browsing(chromium, proxy.root, complaints) as page:
            sign_in(page, "/users")
            expect(page).to_have_url(f"{proxy.root}/users")
            page.get_by_role("button", name="Disable viewer").click()
            expect(page.get_by_role("status")).to_contain_text("saved")
            page.goto("/admin/study/list")  # sqladmin builds whole URLs
            expect(page.locator("h3", has_text="Studies")).to_be_visible()
            assert {urlsplit(address).netloc for address in page.evaluate(ADDRESSES)} <= {
                "",
                f"127.0.0.1:{proxy.port}",
            }
            page.goto("/")
            page.get_by_role("button", name="Sign out").click()
            expect(page).to_have_url(f"{proxy.root}/sign-in")
    assert not complaints


@pytest.mark.parametrize("target", ["", "/", PREFIX], ids=["kept", "stripped", "named"])
def test_everything_works_under_a_path(chromium, tmp_path, complaints, target):
    site = new_site(tmp_path / "home", web_root=PREFIX, rank_by_synthetic=True)
    with serving(site, add_studies(site, tmp_path / "phantom")) as served:
        where = f"{PREFIX}/" if target == "/" else PREFIX
        proxy = Nginx(
            tmp_path / "nginx", f"location {where} {{ proxy_pass {served.root}{target}; }}"
        )
        with proxy, browsing(chromium, proxy.root, complaints) as page:
            sign_in(page, PREFIX)
            expect(page).to_have_url(f"{proxy.root}{PREFIX}/")
            assert {cookie["path"] for cookie in page.context.cookies()} == {PREFIX}
            crawl(page)
            read_a_study(page, served.severe)
            described = page.request.get(f"{PREFIX}/api/v1/openapi.json").json()
            assert described["servers"] == [{"url": PREFIX}]
            assert page.request.get(f"{PREFIX}/api/v1/worklist").ok
            assert page.request.get(f"{PREFIX}/healthz").ok
            page.goto(PREFIX)
            page.get_by_role("button", name="Sign out").click()
            expect(page).to_have_url(f"{proxy.root}{PREFIX}/sign-in")
            left = [cookie["name"] for cookie in page.context.cookies()]
            assert left == [known_cookie_name(site)]  # by which the browser is known
    assert not complaints


def crawl(page: Page) -> None:
    """Follows every link, and looks at every address of links, forms, scripts and pictures."""
    seen, waiting = set(), [f"{PREFIX}/", f"{PREFIX}/me", f"{PREFIX}/admin/study/list"]
    while waiting:
        path = waiting.pop()
        page.goto(path)
        for address in page.evaluate(ADDRESSES):
            if not address or address.startswith(("#", "data:")):
                continue
            parts = urlsplit(address)
            assert parts.netloc == "", address
            assert parts.path.startswith((f"{PREFIX}/", "")) if parts.path else True
            assert not parts.path.startswith("/") or parts.path.startswith(f"{PREFIX}/"), address
        links = page.evaluate(
            "() => [...document.querySelectorAll('a[href]:not([download])')].map(a => a.pathname)"
        )
        for link in links:
            kind = re.sub(r"[0-9.]+", "N", link)
            if kind in seen or link.endswith((".csv", ".zip", "/csv", "/logout", "/instances")):
                continue
            seen.add(kind)
            waiting.append(link)
    assert {f"{PREFIX}/studies", f"{PREFIX}/studies/N", f"{PREFIX}/audit"} <= seen


def read_a_study(page: Page, uid: str) -> None:
    """The images are shown; an action's redirect, a filter, the search and an upload lead on."""
    page.goto(f"{PREFIX}/studies/{uid}")
    expect(page.locator("#image")).to_have_attribute("data-shown", re.compile("."))
    page.get_by_role("button", name="Analyse again").click()
    expect(page).to_have_url(re.compile(f"{PREFIX}/studies/{uid}.done=requeued"))
    page.goto(f"{PREFIX}/studies")
    page.get_by_role("searchbox").fill("test")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile(f"{PREFIX}/studies.q=test"))
    page.goto(f"{PREFIX}/upload")
    page.get_by_label("Files").set_input_files(
        {"name": "a.dcm", "mimeType": "application/dicom", "buffer": b"nothing"}
    )
    page.get_by_role("button", name="Upload and read").click()
    expect(page).to_have_url(re.compile(f"{PREFIX}/upload/[0-9a-f]{{32}}$"))


def test_two_instances_on_one_host_keep_their_own_sessions(chromium, tmp_path):
    context = chromium.new_context()
    page = context.new_page()
    with serving(new_site(tmp_path / "1")) as one, serving(new_site(tmp_path / "2")) as other:
        for served in (one, other):
            sign_in(page, f"{served.root}/sign-in")
        page.goto(one.root)
        page.get_by_role("button", name="Sign out").click()
        page.goto(other.root)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    context.close()
