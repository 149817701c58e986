"""Everybody can read every page: axe-core finds nothing, and nothing is wider than the window, in light and in dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from db.models import UserRole
from tests.browser.conftest import NARROW, WIDE
from tests.browser.filled import ARRIVING, FAILED, NORMAL

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
    *(f"/studies/{uid}" for uid in (NORMAL, FAILED, ARRIVING)),
]


def faults(page) -> list[str]:
    """What axe-core finds, and whether the page has to be moved sideways."""
    found = [
        f"{page.url}: {violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in Axe().run(page).response["violations"]
        for node in violation["nodes"]
    ]
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return [*found, f"{page.url}: {wide} pixels too wide"] if wide > 0 else found


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(open_page, served, complaints, scheme, viewport):
    stranger = open_page(None, color_scheme=scheme, viewport=viewport)
    stranger.goto("/sign-in")
    found = faults(stranger)
    stranger.get_by_label("Name").fill("nobody")
    stranger.get_by_label("Password").fill("wrong")
    stranger.get_by_role("button").click()
    expect(stranger.get_by_role("alert")).to_be_visible()
    found += faults(stranger)
    page = open_page(UserRole.ADMIN, color_scheme=scheme, viewport=viewport)
    for path in PAGES:
        page.goto(path)
        found += faults(page)
    page.goto(f"/studies/{served.severe}?done=reviewed")
    found += faults(page)
    page.goto("/system")
    page.get_by_role("button", name="Test connection to pacs").click()
    expect(page.get_by_role("status")).to_be_visible()
    found += faults(page)
    assert found == []
    complaints[:] = [one for one in complaints if "404" not in one and "401" not in one]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_light_or_dark_as_the_system_wants(open_page, scheme):
    page = open_page(color_scheme=scheme)
    page.goto("/")
    shade = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (min(shade) > 200) if scheme == "light" else (max(shade) < 60)


def test_the_first_tab_leads_past_the_navigation(page):
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_every_page_says_what_it_is_for(open_page):
    page = open_page(UserRole.ADMIN)
    for path in PAGES:
        if path != "/nowhere":
            page.goto(path)
            expect(page.locator("header .notice")).to_contain_text("Research use only")
