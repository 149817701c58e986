"""An upload in the whole system, with a broker and without, survives a kill."""

import pytest

from db import previews
from db.context import SiteContext
from db.models import JobState
from lumbar.settings import Settings
from tests.factories.instances import ROOT
from tests.integration.upload_factory import create_upload, image, remaining_files, row
from tests.system import wait_until

pytestmark = pytest.mark.slow


def test_an_upload_gets_its_result_although_everything_is_killed_during_its_analysis(system):
    system.start()
    site = SiteContext.open(Settings(home=system.home, database_url=system.database_url))
    try:
        system.hold(f"{ROOT}.1")
        name = create_upload(site, [image()])
        wait_until(lambda: row(site, name).images == 1, 60, system.tail)
        assert row(site, name).state is JobState.RUNNING
        system.kill()
        system.let_go(f"{ROOT}.1")
        assert remaining_files(site, name) == ["upload/0001"]
        system.start()
        wait_until(lambda: row(site, name).state is JobState.DONE, 60, system.tail)
        assert row(site, name).attempts == 2
        wait_until(
            lambda: remaining_files(site, name) == ["picture.png"],
            10,
            lambda: str(remaining_files(site, name)),
        )
        previews.discard(site, name)
        assert not previews.folder(site, name).exists()
    finally:
        site.database.close()


@pytest.mark.parametrize("system", ["embedded"], indirect=True)
def test_an_upload_not_yet_analysed_is_analysed_after_the_next_start(system):
    system.start()
    system.kill()
    site = SiteContext.open(Settings(home=system.home, database_url=system.database_url))
    name = create_upload(site, [b"no image"])
    system.start()
    wait_until(lambda: row(site, name).state is JobState.DONE, 60, system.tail)
    assert row(site, name).failure == "the input holds no DICOM files"
    site.database.close()
