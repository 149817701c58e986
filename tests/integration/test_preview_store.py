"""Images kept from an upload, and files that maintenance removes."""

from sqlalchemy import select

from db import context, previews
from db.ingest import ingest
from db.models import Instance, JobState
from tests.factories.ages import pass_days
from tests.factories.instances import ROOT, arrival
from tests.integration.upload_factory import (
    RecordingNotifier,
    change,
    create_upload,
    expire,
    image,
    large_header_image,
    read,
    remaining_files,
    result_of,
    row,
    shaded_slice,
    user_id,
    zip_of,
)
from tests.integration.web_client import audit_rows
from worker import store_upload
from worker.sweep import sweep


def test_kept_images_are_stored_as_if_a_scanner_had_sent_them(site):
    files = [image(number=n) for n in (1, 2)]
    name = create_upload(
        site,
        [zip_of({"a": files[0], "b": files[1], "c": b"no image", "d": image(Modality="CT")})],
        keep=True,
    )
    assert read(site)
    result = result_of(site, name)
    assert result.studies == [f"{ROOT}.1"]
    assert "2 files: new" in result.choices[0]
    assert "1 file: the same image as received before" in " ".join(result.choices)
    assert remaining_files(site, name) == []
    sent = [ingest(site.database, site.store, arrival(shaded_slice(number=n))) for n in (1, 2)]
    assert sent == ["duplicate", "duplicate"]
    with site.database.reading() as session:
        instances = session.scalars(select(Instance)).all()
    assert {instance.source for instance in instances} == {"UPLOAD"}
    assert len(instances) == 2  # the third has a mistaken modality and is the same image
    assert audit_rows(site)[-1] == ("upload.kept", "worker", 1)


def test_an_upload_half_stored_before_a_kill_can_be_stored_again(site, monkeypatch):
    monkeypatch.setattr(context, "PREVIEW_WAIT_S", 0.0)
    name = create_upload(site, [image(number=1), image(number=2)], keep=True)
    original_ingest, results = store_upload.ingest, []

    def dies(*arguments):
        if results:
            raise OSError(28, "No space left on device")
        results.append(original_ingest(*arguments))
        return results[-1]

    monkeypatch.setattr(store_upload, "ingest", dies)
    read(site)
    monkeypatch.undo()
    monkeypatch.setattr(context, "PREVIEW_WAIT_S", 0.0)
    expire(site, name)
    sweep(site, RecordingNotifier())
    assert read(site)
    assert result_of(site, name).choices[:2] == ["1 file: new", "1 file: received before"]


def test_an_upload_without_an_mr_image_is_not_kept_and_has_a_reason(site):
    name = create_upload(site, [b"no image", large_header_image()], keep=True)
    read(site)
    assert row(site, name).failure == "there is no MR image that could be kept"
    assert len(result_of(site, name).choices) == 2
    with site.database.reading() as session:
        assert session.scalars(select(Instance)).all() == []


def test_maintenance_deletes_uploads_after_an_hour_and_leftovers_of_killed_processes(site):
    old, young, ended = (create_upload(site, [image()]) for _ in range(3))
    change(site, old, state=JobState.DONE)
    change(site, ended, state=JobState.DONE)  # and then its worker was killed
    assert previews.delete_expired(site) == 0
    change(site, ended, expires_s=None)  # it ended half an hour later
    pass_days(site.database, 0.5 / 24)
    arriving = previews.create(site, user_id(site, "another"), keep=False)
    (previews.folder(site, arriving) / previews.UPLOAD / "0001").write_bytes(b"half")
    leftover = previews.folder(site, "0" * 32)
    (leftover / "upload").mkdir(parents=True)
    assert previews.delete_expired(site) == 1
    assert not leftover.exists()
    pass_days(site.database, 0.6 / 24)
    assert previews.delete_expired(site) == 1
    assert row(site, old) is None
    assert not previews.folder(site, old).exists()
    assert remaining_files(site, young) == ["upload/0001"]
    assert remaining_files(site, arriving) == ["upload/0001"]
    assert remaining_files(site, ended) == []
    pass_days(site.database, 0.5 / 24)
    assert previews.delete_expired(site) == 2
    assert row(site, arriving) is None
    assert row(site, young) is not None  # it waits for a worker
