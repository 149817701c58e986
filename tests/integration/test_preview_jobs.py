"""Uploads as jobs: a lost worker loses none, a fault ends one, and each is claimed once."""

import threading
import zipfile
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import pytest
from pydicom import dcmread

from db import context, disk_usage, job_lifecycle, leases, previews
from db.leases import LeaseLostError
from db.models import JobKind, JobState
from db.preview_results import PreviewResult
from db.read_models import metrics, statistics
from db.types import db_now
from lumbar.errors import NotDicom, NotFound
from lumbar.store.files import StoreFull
from tests.integration.upload_factory import (
    RecordingNotifier,
    change,
    create_upload,
    expire,
    image,
    read,
    remaining_files,
    result_of,
    row,
    study_files,
    user_id,
)
from tests.integration.web_client import audit_rows
from tests.stub_networks import StubNetworks
from tests.system import wait_until
from worker import preview
from worker.inline import InlineNotifier
from worker.sweep import sweep


def test_a_lost_workers_upload_is_retried_until_three_workers_were_lost(site):
    name = create_upload(site, [image()])
    for lost in (1, 2, 3):
        with site.database.transaction() as session:
            assert job_lifecycle.claim_preview(session, lease_s=10).lease.attempts == lost
        assert not read(site)  # it is claimed by that worker
        expire(site, name)
        notifier = RecordingNotifier()
        assert sweep(site, notifier)["jobs_recovered"] == 1
        assert notifier.notified[JobKind.PREVIEW] == (lost < 3)
    upload = row(site, name)
    assert upload.state is JobState.DEAD
    assert "lost 3 times" in upload.failure
    assert remaining_files(site, name) == []
    assert ("upload.failed", "worker", None) in audit_rows(site)


def test_an_upload_of_a_lost_worker_is_completed_by_the_next(site):
    name = create_upload(site, [image()])
    with site.database.transaction() as session:
        lost_upload = job_lifecycle.claim_preview(session, lease_s=10)
    (previews.folder(site, name) / previews.SCRATCH / "1").mkdir()  # the work it had begun
    expire(site, name)
    sweep(site, RecordingNotifier())
    assert read(site)
    assert row(site, name).state is JobState.DONE
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        job_lifecycle.end_preview(session, lost_upload, PreviewResult(caveats=("of the lost one",)))
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        job_lifecycle.refuse_preview(session, lost_upload, "of the lost one", ())
    with site.database.transaction() as session:
        assert not job_lifecycle.dead_letter(session, lost_upload, "of the lost one")
        assert not leases.extend(session, lost_upload.lease, lease_s=10)
    assert "of the lost one" not in result_of(site, name).caveats


def test_a_superseded_worker_leaves_the_files_to_the_current_one(site, monkeypatch):
    name = create_upload(site, [image()])

    def lose_lease(*arguments):
        expire(site, name)
        sweep(site, RecordingNotifier())
        with site.database.transaction() as session:
            job_lifecycle.claim_preview(session, lease_s=10)
        raise NotDicom("too late")

    monkeypatch.setattr(preview, "analyse", lose_lease)
    assert read(site)
    assert (row(site, name).state, row(site, name).attempts) == (JobState.RUNNING, 2)
    assert remaining_files(site, name) == ["upload/0001"]


def test_an_upload_deleted_while_it_is_read_stays_deleted(site, monkeypatch):
    name = create_upload(site, [image()])
    classify = preview.single_image.classify

    def meanwhile(*arguments):
        previews.discard(site, name)
        return classify(*arguments)

    monkeypatch.setattr(preview.single_image, "classify", meanwhile)
    assert read(site)
    assert row(site, name) is None
    assert not previews.folder(site, name).exists()
    assert audit_rows(site) == []


def test_an_internal_fault_is_attempted_three_times_and_then_the_files_are_deleted(
    site, monkeypatch
):
    monkeypatch.setattr(context, "PREVIEW_WAIT_S", 0.0)
    name = create_upload(site, [image()])

    def failing_networks():
        raise RuntimeError("Doe^Jane")

    for attempt in (1, 2, 3):
        assert read(site, failing_networks)
        assert row(site, name).attempts == attempt
        assert (remaining_files(site, name) == []) is (attempt == 3)
        sweep(site, RecordingNotifier())
    assert row(site, name).state is JobState.DEAD
    assert row(site, name).failure == "an internal fault (RuntimeError); see the log of job 1"


def test_a_full_disk_is_retried_and_reported(site, monkeypatch):
    monkeypatch.setattr(context, "PREVIEW_WAIT_S", 0.0)
    full_site = replace(site, settings=site.settings.model_copy(update={"disk_refuse_above": 0.0}))
    name = create_upload(site, [image()])
    for _ in range(3):
        assert read(full_site)
        sweep(site, RecordingNotifier())
    assert "% full" in row(site, name).failure


@pytest.mark.parametrize("keep", [False, True])
def test_a_disk_that_fills_up_while_a_zip_is_unpacked_is_retried(site, monkeypatch, keep):
    asked = []

    def require_room(asking):
        asked.append(asking)
        if len(asked) > 1:  # the first time, nothing has been unpacked yet
            raise StoreFull("no room")

    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as writing:
        writing.writestr("a.dcm", image())
    monkeypatch.setattr(disk_usage, "require_room", require_room)
    name = create_upload(site, [buffer.getvalue()], keep)

    assert read(site)

    assert len(asked) == 2
    assert row(site, name).state is JobState.PENDING


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_long_reading_keeps_its_lease(site, monkeypatch):
    short_lease = replace(site, settings=site.settings.model_copy(update={"lease_s": 1.0}))
    name = create_upload(site, [image()])
    swept = []

    def slow_networks():
        ends = row(site, name).lease_expires_at + timedelta(seconds=2)

        def lease_is_extended():
            swept.append(sweep(short_lease, RecordingNotifier())["jobs_recovered"])
            return row(site, name).lease_expires_at > ends

        wait_until(lease_is_extended, 20, lambda: "the lease was not extended")
        return StubNetworks()

    assert read(short_lease, slow_networks)
    assert not any(swept)
    assert (row(site, name).state, row(site, name).attempts) == (JobState.DONE, 1)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_hanging_reading_is_released_and_its_worker_ended(site, monkeypatch):
    stuck = replace(site, settings=site.settings.model_copy(update={"job_limit_s": 0.2}))
    create_upload(site, [image()])
    ended = threading.Event()
    monkeypatch.setattr("worker.runner.os.kill", lambda *_: ended.set())
    assert read(stuck, lambda: ended.wait(10) and StubNetworks())
    assert ended.is_set()


def test_the_number_of_a_deleted_upload_is_never_reused(site):
    first = create_upload(site, [image()])
    number = row(site, first).id
    previews.discard(site, first)
    assert row(site, create_upload(site, [image()])).id > number


def test_workers_that_claim_concurrently_get_one_upload_each_the_oldest_first(site):
    names = [create_upload(site, [b""]) for _ in range(3)]
    with site.database.transaction() as session:
        claimed = [job_lifecycle.claim_preview(session, lease_s=10) for _ in range(4)]
    assert [upload and upload.name for upload in claimed] == [*names, None]


def test_an_upload_that_is_still_arriving_is_not_claimed(site):
    name = previews.create(site, user_id(site), keep=False)
    assert not read(site)
    with site.database.transaction() as session:
        previews.mark_uploaded(session, name, files=1, size=1)
    with pytest.raises(NotFound), site.database.transaction() as session:
        previews.mark_uploaded(session, name, files=1, size=1)
    assert read(site)


def test_uploads_are_counted_among_the_jobs_in_flight(site):
    name = create_upload(site, [image()])
    change(site, name, uploaded_at=db_now(-60))
    with site.database.reading() as session:
        figures = metrics.figures(session, ())
        assert statistics.in_flight(session).jobs == {(JobKind.PREVIEW, JobState.PENDING): 1}
    assert figures.jobs == {(JobKind.PREVIEW, JobState.PENDING): 1}
    assert 59 < figures.queue_age_s[JobKind.PREVIEW] < 120
    with site.database.transaction() as session:
        job_lifecycle.claim_preview(session, lease_s=10)
    expire(site, name)
    with site.database.reading() as session:
        assert statistics.in_flight(session).leases_expired == 1


def test_without_a_broker_uploads_and_studies_take_turns():
    run_kinds, remaining = [], {JobKind.ANALYSE: 3, JobKind.PREVIEW: 2}

    def task(kind):
        def run_one():
            if not remaining[kind]:
                return False
            remaining[kind] -= 1
            run_kinds.append(kind)
            started.wait(10)
            return True

        return run_one

    started = threading.Event()
    notifier = InlineNotifier({kind: task(kind) for kind in remaining})
    for _ in range(3):  # notified again while they are busy
        notifier.notify(JobKind.ANALYSE, 3)
        notifier.notify(JobKind.PREVIEW, 2)
    started.set()
    wait_until(lambda: not sum(remaining.values()), 10, lambda: f"left: {remaining}")
    notifier.close()
    analyse, upload = JobKind.ANALYSE, JobKind.PREVIEW
    assert run_kinds == [analyse, upload, analyse, upload, analyse]


@pytest.mark.slow
def test_repeated_uids_are_read_apart_and_the_result_says_that_no_report_can_refer_to_them(
    site, phantom
):
    repeated = []
    for path in sorted(phantom(1)[0].rglob("*.dcm")):
        ds = dcmread(path)
        ds.SOPInstanceUID = f"1.2.3.{ds.InstanceNumber}"  # as in every other series
        file = BytesIO()
        ds.save_as(file)
        repeated.append(file.getvalue())
    results = []
    for files in (study_files(phantom(1)[0]), repeated):
        name = create_upload(site, files)
        assert read(site)
        results.append(result_of(site, name))
    unique, ambiguous = results
    assert ambiguous.findings == unique.findings
    note = (
        "no report could be written: SOP Instance UIDs repeat, so its references would be ambiguous"
    )
    assert ambiguous.choices == [*unique.choices, note]
