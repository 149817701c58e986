"""Lists: filtered by the address, refreshed, saved as CSV; studies and jobs acted on."""

import csv
import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete

from db.ingest import ingest
from db.models import StudyState, UserRole, WebSession
from db.studies import find
from tests.browser.site_with_images import ARRIVING, FAILED, LATE_STUDY, NORMAL
from tests.factories.instances import ROOT, arrival, make_slice

pytestmark = pytest.mark.slow

FIFTEEN_S = 15_000


def rows(page):
    return page.locator("tr[data-study]")


@pytest.mark.parametrize("path", ["/", "/studies"])
def test_a_search_and_a_state_stay_in_the_address_and_survive_a_reload(page, served, path):
    page.goto(path)
    page.get_by_label("Search").fill("norm")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page).to_have_url(re.compile(r"\?q=norm&"))
    for _ in range(2):
        expect(rows(page)).to_have_count(1)
        expect(rows(page)).to_contain_text("Normal, Nora")
        expect(page.get_by_label("Search")).to_have_value("norm")
        page.reload()
    page.get_by_role("link", name="Show all").click()
    expect(page).to_have_url(f"{served.root}{path}")
    page.get_by_label("State").select_option("failed")
    page.get_by_role("button", name="Show", exact=True).click()
    for _ in range(2):
        expect(rows(page)).to_have_count(1)
        expect(rows(page)).to_contain_text(
            "failed: the disk is full" if path == "/" else "Failed, Fay"
        )
        expect(page.get_by_label("State")).to_have_value("failed")
        page.reload()


def test_findings_are_filtered_and_saved_as_csv(page, served):
    page.goto("/findings")
    page.get_by_label("Severe").check()
    page.get_by_label("Moderate").check()
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page).to_have_url(re.compile("severity=moderate&severity=severe"))
    expect(page.locator("tbody tr")).to_have_count(2)
    page.reload()
    expect(page.get_by_label("Severe")).to_be_checked()
    expect(page.get_by_label("Normal/Mild")).not_to_be_checked()
    with page.expect_download() as saving:
        page.get_by_role("link", name="Save as CSV").click()
    assert saving.value.suggested_filename == "findings.csv"
    with saving.value.path().open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [(row["severity"], row["level"]) for row in rows] == [
        ("moderate", "l3_l4"),  # as the RSNA rows are ordered
        ("severe", "l4_l5"),
    ]
    assert {row["study_instance_uid"] for row in rows} == {served.severe}
    assert "Research use only" in rows[0]["notice"]
    assert rows[0]["row_id"].startswith(served.severe)
    page.get_by_role("row", name="L4/L5").get_by_role("link").click()
    expect(page.get_by_role("heading", name="L4/L5 Spinal canal stenosis")).to_be_visible()


def test_the_worklist_refreshes_itself_and_keeps_the_selection(page, served):
    page.clock.install()
    page.goto("/")
    page.keyboard.press("j")
    new = page.locator(f'tr[data-study="{ROOT}.{LATE_STUDY}"]')
    expect(new).to_have_count(0)
    ingest(
        served.site.database,
        served.site.store,
        arrival(make_slice(study=LATE_STUDY, PatientName="Late^Lea")),
    )
    before = page.locator("p[aria-live]").inner_text()
    page.clock.run_for(FIFTEEN_S)
    expect(new).to_contain_text("Late, Lea")
    expect(page.locator("tr.selected")).to_have_attribute("data-study", served.severe)
    assert page.locator("p[aria-live]").inner_text() != before
    expect(page).to_have_url(f"{served.root}/")


def test_a_list_whose_session_has_ended_leads_to_the_sign_in_page(page, served, complaints):
    page.clock.install()
    page.goto("/?q=nor")
    with served.site.database.transaction() as session:
        session.execute(delete(WebSession))
    page.clock.run_for(FIFTEEN_S)
    expect(page).to_have_url(re.compile(r"/sign-in\?to=%2F%3Fq%3Dnor$"))
    expect(page.get_by_text("Nora")).to_have_count(0)
    assert "401" in complaints.pop()


def test_an_operator_requeues_a_failed_study_and_completes_an_arriving_one(open_page, served):
    page = open_page(UserRole.OPERATOR)
    page.goto(f"/studies/{FAILED}")
    page.get_by_role("button", name="Analyse again").click()
    expect(page.get_by_role("status").first).to_have_text("The study is queued again.")
    page.goto(f"/studies/{ARRIVING}")
    page.get_by_role("button", name="Analyse now").click()
    expect(page.get_by_role("status").first).to_have_text("The study is queued.")
    with served.site.database.reading() as session:
        assert {find(session, uid).state for uid in (FAILED, ARRIVING)} == {StudyState.QUEUED}
    page.goto("/jobs")
    expect(page.locator("tbody tr")).not_to_have_count(0)
    before = page.locator("tbody tr").count()
    page.get_by_role("button", name=re.compile("^Cancel job")).first.click()
    expect(page.get_by_role("status").first).to_have_text("The job is cancelled.")
    expect(page.locator("tbody tr")).to_have_count(before - 1)


def test_a_role_is_offered_only_what_it_may_do(open_page):
    page = open_page(UserRole.VIEWER)
    page.goto(f"/studies/{NORMAL}")
    expect(page.get_by_role("heading", name="Normal, Nora")).to_be_visible()
    expect(page.locator("main button")).to_have_count(1)  # which resets the window of the images
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(
        ["lumbar-triage", "Worklist", "Studies", "Findings", "Quality", "viewer"]
    )


def test_an_administrator_adds_a_user_and_creates_a_token(open_page, served):
    page = open_page(UserRole.ADMIN)
    page.goto("/users")
    form = page.locator("form", has=page.get_by_role("heading", name="New user"))
    form.get_by_label("Name").fill("ben")
    form.get_by_label("Password").fill("a good long one")
    form.get_by_role("button").click()
    expect(page.get_by_role("status").first).to_have_text("The change is saved.")
    form = page.locator("form", has=page.get_by_role("heading", name="New API token"))
    form.get_by_label("User").select_option("ben")
    form.get_by_label("Purpose").fill("ris")
    form.get_by_role("button").click()
    token = page.locator("#token").inner_text()
    response = page.request.get("/api/v1/worklist", headers={"Authorization": f"Bearer {token}"})
    assert response.ok
    page.goto("/users")
    expect(page.get_by_text(token)).to_have_count(0)
