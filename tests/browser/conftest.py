"""Chromium before a page that is served as it is in use: no error in its console, no request to another host."""

import shutil
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from db import accounts
from db.models import UserRole
from tests.browser.filled import fill
from tests.browser.served import PASSWORD, WIDE, Served
from tests.integration.morning import open_site
from tests.peers import free_port
from tests.system import wait_until
from web.server import serve


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    settings = {
        "web_port": port,
        "rank_by_synthetic": True,
        "destinations": {"pacs": "dicom://PACS@127.0.0.1:1"},
    }
    site = open_site(tmp_path_factory.mktemp("site"), **settings)
    severe = fill(site, tmp_path_factory.mktemp("phantom"))
    with site.database.transaction() as session:
        for role in UserRole:
            accounts.add_user(session, role.value, PASSWORD, role, "test")
    stop = threading.Event()
    serving = threading.Thread(target=serve, args=(site, stop))
    serving.start()
    served = Served(site, f"http://127.0.0.1:{port}", severe)
    try:
        wait_until(served.answers, 30, lambda: "the page does not answer")
        yield served
    finally:
        stop.set()
        serving.join(30)
        site.database.close()


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    # While it runs, no other event loop can in this thread: it ends with this folder's tests.
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox"]
    )
    yield browser
    browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What a test's pages did that they should not; a test takes out what it expects."""
    return []


@pytest.fixture
def open_page(
    chromium: Browser, served: Served, complaints: list[str]
) -> Iterator[Callable[..., Page]]:
    """A browser of its own, in which a role is signed in or nobody is."""
    contexts = []

    def opened(role: UserRole | None = UserRole.READER, **options: object) -> Page:
        context = chromium.new_context(base_url=served.root, **{"viewport": WIDE} | options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(20_000)
        if role is not None:
            with served.site.database.transaction() as session:
                cookie = accounts.sign_in(session, role.value, PASSWORD, "127.0.0.1").cookie
            context.add_cookies([{"name": "lumbar_session", "value": cookie, "url": served.root}])

        def asked(url: str) -> None:
            if not url.startswith((f"{served.root}/", "data:", "blob:")):
                complaints.append(f"asked {url}")

        context.on("request", lambda request: asked(request.url))
        context.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context.new_page()

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A reader's."""
    return open_page()
