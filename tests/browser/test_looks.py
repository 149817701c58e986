"""Accessibility: axe-core finds nothing, no page is wider than the window, in light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from db.models import UserRole
from tests.browser.served import NARROW, WIDE
from tests.browser.site_with_images import ARRIVING, CORRECTED, FAILED, NORMAL

pytestmark = pytest.mark.slow

PAGES = [
    *(
        "/",
        "/studies",
        "/findings",
        "/quality",
        "/jobs?state=done&state=dead&state=pending",
        "/system",
        "/users",
    ),
    *("/audit", "/me", "/upload", "/nowhere", "/?q=nobody", "/findings?severity=severe&since=1h"),
    *(f"/studies/{uid}" for uid in (NORMAL, FAILED, ARRIVING, CORRECTED)),
    "/quarantine",
]


def violations(page) -> list[str]:
    """What axe-core finds, and whether the page has to be scrolled sideways."""
    problems = [
        f"{page.url}: {violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in Axe().run(page).response["violations"]
        for node in violation["nodes"]
    ]
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return [*problems, f"{page.url}: {wide} pixels too wide"] if wide > 0 else problems


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(open_page, served, complaints, scheme, viewport):
    signed_out = open_page(None, color_scheme=scheme, viewport=viewport)
    signed_out.goto("/sign-in")
    problems = violations(signed_out)
    signed_out.get_by_label("Name").fill("nobody")
    signed_out.get_by_label("Password").fill("wrong")
    signed_out.get_by_role("button").click()
    expect(signed_out.get_by_role("alert")).to_be_visible()
    problems += violations(signed_out)
    page = open_page(UserRole.ADMIN, color_scheme=scheme, viewport=viewport)
    for path in PAGES:
        page.goto(path)
        problems += violations(page)
    page.goto(f"/studies/{served.severe}?done=reviewed")
    problems += violations(page)
    page.goto("/system")
    page.get_by_role("button", name="Test connection to pacs").click()
    expect(page.get_by_role("status")).to_be_visible()
    problems += violations(page)
    assert problems == []
    complaints[:] = [text for text in complaints if "404" not in text and "401" not in text]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_light_or_dark_preference(open_page, scheme):
    page = open_page(color_scheme=scheme)
    page.goto("/")
    shade = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (min(shade) > 200) if scheme == "light" else (max(shade) < 60)


def test_the_first_tab_skips_the_navigation(page):
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_every_page_is_marked_research_use_only(open_page):
    page = open_page(UserRole.ADMIN)
    for path in PAGES:
        if path != "/nowhere":
            page.goto(path)
            expect(page.locator("header .notice")).to_contain_text("Research use only")
