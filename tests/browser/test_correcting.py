"""A correction is seen on the worklist, taken over by one click, and the new patient listed."""

import pytest
from playwright.sync_api import expect

from db.models import UserRole
from tests.browser.site_with_images import CORRECTED
from tests.factories.instances import ROOT
from tests.factories.quarantine import send, send_corrected

pytestmark = pytest.mark.slow

HOSTILE = "<img src onerror>document"


def test_an_operator_takes_a_study_over_and_sees_the_new_patient_on_the_worklist(open_page, served):
    uid = f"{ROOT}.7"
    send_corrected(served.site.database, served.site.store, 7, PatientName="Right^Rita")
    page = open_page(UserRole.OPERATOR)
    page.goto("/")
    row = page.locator(f'tr[data-study="{uid}"]')
    expect(row.locator(".flag.correction")).to_contain_text("newer copies of 2 of 2 images")
    expect(row.locator(".flag.correction")).to_have_css("font-weight", "700")
    row.get_by_role("link").click()
    box = page.get_by_role("region", name="Correction")
    expect(box.get_by_role("heading")).to_have_text("Sent again under another patient")
    expect(box.get_by_role("row", name="Patient number")).to_contain_text("P7OTHER")
    box.get_by_role("button", name="Take over").click()
    expect(page.get_by_role("status").first).to_contain_text("The study is taken over")
    expect(page.get_by_role("heading", level=1)).to_have_text("Right, Rita")
    expect(page.get_by_role("region", name="Correction")).to_have_count(0)
    page.goto("/")
    expect(row).to_contain_text("Right, Rita")
    expect(row.locator(".flag.correction")).to_have_count(0)


def test_an_operator_releases_and_drops_instances(open_page, served):
    uid = f"{ROOT}.8"
    send(served.site.database, served.site.store, study=8)
    send(served.site.database, served.site.store, study=8, fill=99)
    page = open_page(UserRole.OPERATOR)
    page.goto(f"/quarantine?uid={uid}")
    rows = page.locator("table.quarantined tbody tr")
    expect(rows).to_contain_text("other content under the same SOP Instance UID")
    page.get_by_role("button", name="Release instance").click()
    expect(page.get_by_role("status").first).to_contain_text("The instance is released.")
    page.goto(f"/studies/{uid}")
    expect(rows).to_contain_text("replaced by a newer copy")
    page.get_by_role("button", name="Drop instance").click()
    expect(page.get_by_role("status").first).to_have_text("The instance is deleted.")
    expect(page.locator("table.quarantined")).to_have_count(0)


def test_a_hostile_name_in_a_quarantined_copy_is_a_text(open_page, served):
    uid = f"{ROOT}.9"
    send_corrected(
        served.site.database, served.site.store, 9, PatientID=HOSTILE, PatientName=HOSTILE
    )
    page = open_page(UserRole.OPERATOR)
    for path in ("/", f"/studies/{uid}", f"/quarantine?uid={uid}"):
        page.goto(path)
        expect(page.get_by_text(HOSTILE).first).to_be_visible()
        assert page.locator("main img").count() == 0


def test_a_reader_is_told_of_a_correction_and_is_offered_no_action(page):
    page.goto(f"/studies/{CORRECTED}")
    box = page.get_by_role("region", name="Correction")
    expect(box).to_contain_text("when the rest have been sent again")
    expect(box.get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("button", name="Drop instance")).to_have_count(0)
