"""A zip is uploaded, read by a worker, shown and deleted."""

import re

import pytest
from playwright.sync_api import expect

from db import previews
from tests.integration.upload_factory import read, study_files, zip_of

pytestmark = pytest.mark.slow


def test_a_zip_is_uploaded_read_shown_and_deleted(page, served, phantom, tmp_path):
    folder, _ = phantom(0)
    archive = tmp_path / "study.zip"
    archive.write_bytes(
        zip_of({f"{n}.dcm": content for n, content in enumerate(study_files(folder))})
    )
    page.goto("/")
    page.get_by_role("link", name="Upload").click()
    page.get_by_label("Files").set_input_files(archive)
    page.get_by_role("button", name="Upload and read").click()
    expect(page).to_have_url(re.compile("/upload/[0-9a-f]{32}$"))
    expect(page.get_by_role("main")).to_contain_text("waiting for a worker")
    name = page.url.rpartition("/")[2]
    assert read(served.site)
    expect(page.locator(".cells td .cell")).to_have_count(25)
    expect(page.get_by_role("main")).to_contain_text("Research use only")
    expect(page.locator("main img")).to_have_js_property("complete", True)
    assert page.locator("main img").evaluate("image => image.naturalWidth") > 400
    assert not (previews.folder(served.site, name) / previews.UPLOAD).exists()
    page.get_by_role("button", name="Delete now").click()
    expect(page).to_have_url(re.compile("/upload$"))
    assert not previews.folder(served.site, name).exists()
