"""Chromium on the served page: any console error or request to another host fails the test."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from db.models import UserRole
from tests.browser.served import WIDE, Served, new_site, serving
from tests.browser.site_with_images import add_studies
from tests.factories.accounts import signed_in
from web.auth import cookie_name

expect.set_options(timeout=30_000)  # ms; how long a page takes depends on what else runs


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = {"rank_by_synthetic": True, "destinations": {"pacs": "dicom://PACS@127.0.0.1:1"}}
    site = new_site(tmp_path_factory.mktemp("site"), **settings)
    with serving(site, add_studies(site, tmp_path_factory.mktemp("phantom"))) as served:
        yield served


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    # It occupies the thread's event loop, so it ends with the tests of this folder.
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--ignore-certificate-errors"],  # the tests' own are self-signed
    )
    yield browser
    browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """Console errors and foreign requests of the test's pages; a test removes those it expects."""
    return []


@pytest.fixture
def open_page(
    chromium: Browser, served: Served, complaints: list[str]
) -> Iterator[Callable[..., Page]]:
    """Opens a page in a new browser context, signed in as a user of a role or not at all."""
    contexts = []

    def new_page(role: UserRole | None = UserRole.READER, **options: object) -> Page:
        context = chromium.new_context(base_url=served.root, **{"viewport": WIDE} | options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(20_000)
        if role is not None:
            cookie = signed_in(served.site.database, role.value)
            name = cookie_name(served.site)
            context.add_cookies([{"name": name, "value": cookie, "url": served.root}])

        def check_request(url: str) -> None:
            if not url.startswith((f"{served.root}/", "data:", "blob:")):
                complaints.append(f"request to {url}")

        context.on("request", lambda request: check_request(request.url))
        context.on(
            "console",
            lambda message: (
                complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context.new_page()

    yield new_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A page with a reader signed in."""
    return open_page()
