"""Uploads as jobs: a lost worker loses none, a fault ends one, and each is claimed once."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from commands import services
from db import context, job_lifecycle, leases, previews
from db.leases import LeaseLostError
from db.models import JobKind, JobState
from db.preview_results import PreviewResult
from db.read_models import metrics, study_queries
from db.types import db_now
from lumbar.errors import NotDicom, NotFound
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
    user_id,
)
from tests.integration.web_client import audit_rows
from tests.stub_networks import StubNetworks
from tests.system import wait_until
from worker import preview
from worker.inline import InlineNotifier
from worker.sweep import sweep


def test_a_lost_workers_upload_is_read_by_another_and_after_three_by_nobody(site):
    name = create_upload(site, [image()])
    for lost in (1, 2, 3):
        with site.database.transaction() as session:
            assert job_lifecycle.claim_preview(session, lease_s=10).lease.attempts == lost
        assert not read(site)  # it is in its hands
        expire(site, name)
        notifier = RecordingNotifier()
        assert sweep(site, notifier)["jobs_recovered"] == 1
        assert notifier.notified[JobKind.PREVIEW] == (lost < 3)
    found = row(site, name)
    assert found.state is JobState.DEAD
    assert "lost 3 times" in found.failure
    assert remaining_files(site, name) == []
    assert ("upload.failed", "reader", None) in audit_rows(site)


def test_an_upload_of_a_lost_worker_is_answered_by_the_next(site):
    name = create_upload(site, [image()])
    with site.database.transaction() as session:
        lost = job_lifecycle.claim_preview(session, lease_s=10)
    (previews.folder(site, name) / previews.SCRATCH / "1").mkdir()  # what it was about to do
    expire(site, name)
    sweep(site, RecordingNotifier())
    assert read(site)
    assert row(site, name).state is JobState.DONE
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        job_lifecycle.end_preview(session, lost, PreviewResult(caveats=("of the lost one",)))
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        job_lifecycle.refuse_preview(session, lost, "of the lost one", ())
    with site.database.transaction() as session:
        assert not job_lifecycle.dead_letter(session, lost, "of the lost one")
        assert not leases.extend(session, lost.lease, lease_s=10)
    assert "of the lost one" not in result_of(site, name).caveats


def test_an_overtaken_worker_leaves_the_files_to_who_has_them_now(site, monkeypatch):
    name = create_upload(site, [image()])

    def overtaken(*arguments):
        expire(site, name)
        sweep(site, RecordingNotifier())
        with site.database.transaction() as session:
            job_lifecycle.claim_preview(session, lease_s=10)
        raise NotDicom("too late")

    monkeypatch.setattr(preview, "analyse", overtaken)
    assert read(site)
    assert (row(site, name).state, row(site, name).attempts) == (JobState.RUNNING, 2)
    assert remaining_files(site, name) == ["upload/0001"]


def test_what_is_forgotten_while_it_is_read_stays_forgotten(site, monkeypatch):
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


def test_a_fault_of_ours_is_tried_three_times_and_then_the_files_go(site, monkeypatch):
    monkeypatch.setattr(context, "PREVIEW_WAIT_S", 0.0)
    name = create_upload(site, [image()])

    def broken():
        raise RuntimeError("Doe^Jane")

    for attempt in (1, 2, 3):
        assert read(site, broken)
        assert row(site, name).attempts == attempt
        assert (remaining_files(site, name) == []) is (attempt == 3)
        sweep(site, RecordingNotifier())
    assert row(site, name).state is JobState.DEAD
    assert row(site, name).failure == "an internal fault (RuntimeError); see the log of job 1"


def test_a_full_disk_is_tried_again_and_said_so(site, monkeypatch):
    monkeypatch.setattr(context, "PREVIEW_WAIT_S", 0.0)
    full = replace(site, settings=site.settings.model_copy(update={"disk_refuse_above": 0.0}))
    name = create_upload(site, [image()])
    for _ in range(3):
        assert read(full)
        sweep(site, RecordingNotifier())
    assert "% full" in row(site, name).failure


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_long_reading_keeps_its_lease(site, monkeypatch):
    quick = replace(site, settings=site.settings.model_copy(update={"lease_s": 1.0}))
    name = create_upload(site, [image()])
    swept = []

    def slow():
        ends = row(site, name).lease_expires_at + timedelta(seconds=2)

        def kept():
            swept.append(sweep(quick, RecordingNotifier())["jobs_recovered"])
            return row(site, name).lease_expires_at > ends

        wait_until(kept, 20, lambda: "the lease was not extended")
        return StubNetworks()

    assert read(quick, slow)
    assert not any(swept)
    assert (row(site, name).state, row(site, name).attempts) == (JobState.DONE, 1)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_reading_that_hangs_is_given_back_and_its_worker_ended(site, monkeypatch):
    stuck = replace(site, settings=site.settings.model_copy(update={"job_limit_s": 0.2}))
    create_upload(site, [image()])
    ended = threading.Event()
    monkeypatch.setattr("worker.runner.os.kill", lambda *_: ended.set())
    assert read(stuck, lambda: ended.wait(10) and StubNetworks())
    assert ended.is_set()


def test_a_forgotten_ones_number_is_never_given_again(site):
    first = create_upload(site, [image()])
    number = row(site, first).id
    previews.discard(site, first)
    assert row(site, create_upload(site, [image()])).id > number


def test_workers_that_claim_at_once_get_one_each_the_oldest_first(site):
    names = [create_upload(site, [b""]) for _ in range(3)]
    with site.database.transaction() as session:
        claimed = [job_lifecycle.claim_preview(session, lease_s=10) for _ in range(4)]
    assert [one and one.name for one in claimed] == [*names, None]


def test_what_is_still_arriving_is_nobodys_to_read(site):
    name = previews.create(site, user_id(site), keep=False)
    assert not read(site)
    with site.database.transaction() as session:
        previews.mark_uploaded(session, name, files=1, size=1)
    with pytest.raises(NotFound), site.database.transaction() as session:
        previews.mark_uploaded(session, name, files=1, size=1)
    assert read(site)


def test_uploads_are_counted_among_what_is_in_flight(site):
    name = create_upload(site, [image()])
    change(site, name, uploaded_at=db_now(-60))
    with site.database.reading() as session:
        told = metrics.figures(session)
        assert study_queries.in_flight(session).jobs == {(JobKind.PREVIEW, JobState.PENDING): 1}
    assert told.jobs == {(JobKind.PREVIEW, JobState.PENDING): 1}
    assert 59 < told.queue_age_s[JobKind.PREVIEW] < 120
    with site.database.transaction() as session:
        job_lifecycle.claim_preview(session, lease_s=10)
    expire(site, name)
    with site.database.reading() as session:
        assert study_queries.in_flight(session).leases_expired == 1


def test_without_a_broker_uploads_and_studies_take_turns():
    done, left = [], {JobKind.ANALYSE: 3, JobKind.PREVIEW: 2, JobKind.DELIVER: 1}

    def task(kind):
        def one():
            if not left[kind]:
                return False
            left[kind] -= 1
            done.append(kind)
            started.wait(10)
            return True

        return one

    started = threading.Event()
    notifier = InlineNotifier({kind: task(kind) for kind in left})
    for _ in range(3):  # rung again while they are busy
        notifier.notify(JobKind.ANALYSE, 3)
        notifier.notify(JobKind.PREVIEW, 2)
    started.set()
    wait_until(lambda: sum(left.values()) <= 1, 10, lambda: f"left: {left}")
    notifier.close()
    analyse, upload = JobKind.ANALYSE, JobKind.PREVIEW
    assert done == [analyse, upload, analyse, upload, analyse]


@pytest.mark.parametrize(
    ("only", "kinds"),
    [
        ("analyse", {"analyse", "preview"}),
        ("deliver", {"deliver"}),
        (None, {"analyse", "deliver", "preview"}),
    ],
)
def test_the_worker_that_has_the_networks_reads_uploads_too(monkeypatch, tmp_path, only, kinds):
    taken = []
    monkeypatch.setenv("LUMBAR_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(services, "load_networks", lambda settings: StubNetworks)
    monkeypatch.setattr(services, "_site", lambda *_: None)
    monkeypatch.setattr(services.logging, "configure", lambda *_: None)
    monkeypatch.setattr("worker.celery_app.run_worker", lambda app, kinds: taken.extend(kinds))
    services.worker(only=only)
    assert set(taken) == kinds
