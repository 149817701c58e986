"""Uploads read once: what is answered, that the files go whatever happens, and that a lost worker loses nothing."""

import re
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from commands import services
from db import previews
from db.ingest import ingest
from db.job_lifecycle import LeaseLostError
from db.models import Instance, JobKind, JobState
from db.preview_results import Answer
from db.read_models import metrics, statistics
from db.types import db_now
from lumbar.errors import NotDicom, NotFound
from lumbar.spine.anatomy import ALL_FINDINGS, Condition
from tests.hostile.archives import INPUTS
from tests.hostile.test_archives import peak
from tests.integration.conftest import ROOT, arrival, make_slice
from tests.integration.uploads import (
    change,
    expire,
    files_left,
    files_of,
    heavy_image,
    image,
    read,
    row,
    uploaded,
    user_id,
    zipped,
)
from tests.integration.visitors import trail
from tests.stub_program import StubNetworks
from tests.system import wait_until
from worker import preview, store_upload
from worker.inline import InlineNotifier
from worker.sweep import sweep

HOSTILE_ZIPS = [one for one in INPUTS if "zip" in one.name and "a folder" not in one.name]


class NoDoorbell:
    def __init__(self):
        self.rung = {}

    def notify(self, kind, due):
        self.rung[kind] = due


def answer_of(site, name) -> Answer:
    return Answer.read(row(site, name).answer)


def test_a_zip_of_a_study_is_answered_with_25_findings_and_a_picture_and_nothing_else_is_left(
    site, phantom
):
    study, _ = phantom(3)
    name = uploaded(
        site, [zipped({f"{n}.dcm": content for n, content in enumerate(files_of(study))})]
    )
    assert read(site)
    found = row(site, name)
    answer = answer_of(site, name)
    assert (found.state, found.reason) == (JobState.DONE, None)
    assert found.images == len(files_of(study))
    assert set(answer.cells) == set(ALL_FINDINGS)
    graded = [grade for grade in answer.findings if grade.severity]
    assert len(graded) > 10
    assert all(
        sum(grade.probabilities) == pytest.approx(1) and 0 <= grade.shows <= 1 for grade in graded
    )
    assert answer.notices[0].startswith("Research use only")
    assert answer.choices
    assert files_left(site, name) == ["picture.png"]
    assert trail(site) == [("upload.analysed", "reader", None)]
    assert not read(site)


def test_many_files_are_read_and_those_that_are_none_are_told_of(site, phantom):
    name = uploaded(site, [*files_of(phantom(3)[0]), b"no image", b""])
    read(site)
    assert "2 files passed over: not a DICOM file" in answer_of(site, name).choices
    assert len(answer_of(site, name).findings) == len(ALL_FINDINGS)


def test_a_loose_axial_slice_gives_its_recesses_without_a_level(site):
    name = uploaded(site, [image(plane="axial")])
    read(site)
    answer = answer_of(site, name)
    assert {grade.condition for grade in answer.readings} == {
        Condition.LEFT_SUBARTICULAR_STENOSIS,
        Condition.RIGHT_SUBARTICULAR_STENOSIS,
    }
    assert not answer.findings
    assert files_left(site, name) == ["picture.png"]


def test_one_image_that_shows_no_spine_is_classified_as_a_whole(site):
    name = uploaded(site, [image()])  # of one grey
    read(site)
    answer = answer_of(site, name)
    assert (len(answer.conditions), len(answer.severities)) == (6, 3)
    assert not answer.findings
    assert "the middle of the image" in answer.choices[0].lower()
    assert files_left(site, name) == ["picture.png"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([b"\x89PNG"], "the input holds no DICOM files"),
        ([image(), image(study=2)], "the slices belong to several studies; analyse one at a time"),
        ([image(number=1), image(number=2)], "no lumbar spine was found .*"),
        ([image(RepetitionTime=None, EchoTime=None)], ".*"),
    ],
    ids=["no image", "two studies", "two odd slices", "no weighting"],
)
def test_what_cannot_be_read_gives_a_reason_in_words_and_goes_as_well(site, files, reason):
    name = uploaded(site, files)
    assert read(site)
    found = row(site, name)
    assert found.state is JobState.DONE
    assert found.attempts == 1
    assert re.fullmatch(reason, found.reason)
    assert files_left(site, name) == []
    assert trail(site)[-1] == ("upload.not_analysable", "reader", None)


@pytest.mark.parametrize("keep", [False, True])
def test_a_header_that_bloats_its_parser_costs_the_worker_nothing(site, keep):
    name = uploaded(site, [heavy_image(), image()], keep)
    before = peak()
    read(site)
    assert peak() - before < 100 * 2**20
    told = [line for line in answer_of(site, name).choices if line.startswith("1 file ")]
    assert len(told) == 1
    assert row(site, name).state is JobState.DONE
    assert row(site, name).reason is None


@pytest.mark.parametrize("hostile", HOSTILE_ZIPS, ids=lambda one: one.name)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_hostile_zip_is_refused_in_words_and_writes_nowhere_else(site, tmp_path, hostile):
    place = tmp_path / "made"
    place.mkdir()
    name = uploaded(site, [hostile.make(place).read_bytes()])
    before = {path for path in tmp_path.rglob("*") if "previews" not in path.parts}
    read(site)
    found = row(site, name)
    assert found.state is JobState.DONE
    if hostile.why:
        assert re.fullmatch(hostile.why, found.reason)
    else:
        assert answer_of(site, name).readings  # it is axial
    new = {path for path in tmp_path.rglob("*") if "previews" not in path.parts} - before
    assert {path.name for path in new} <= {"store", "lumbar.sqlite-wal", "lumbar.sqlite-shm"}
    assert set(files_left(site, name)) <= {"picture.png"}


def test_a_lost_workers_upload_is_read_by_another_and_after_three_by_nobody(site):
    name = uploaded(site, [image()])
    for lost in (1, 2, 3):
        with site.database.transaction() as session:
            assert previews.claim(session, lease_s=10).attempts == lost
        assert not read(site)  # it is in its hands
        expire(site, name)
        notifier = NoDoorbell()
        assert sweep(site, notifier)["previews_recovered"] == 1
        assert notifier.rung[JobKind.PREVIEW] == (lost < 3)
    found = row(site, name)
    assert found.state is JobState.DEAD
    assert "lost 3 times" in found.reason
    assert files_left(site, name) == []
    assert ("upload.failed", "reader", None) in trail(site)


def test_an_upload_of_a_lost_worker_is_answered_by_the_next(site):
    name = uploaded(site, [image()])
    with site.database.transaction() as session:
        lost = previews.claim(session, lease_s=10)
    (previews.folder(site, name) / previews.SCRATCH / "1").mkdir()  # what it was about to do
    expire(site, name)
    sweep(site, NoDoorbell())
    assert read(site)
    assert row(site, name).state is JobState.DONE
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        previews.finish(session, lost, Answer(caveats=("of the lost one",)))
    with site.database.transaction() as session:
        assert not previews.refuse(session, lost, "of the lost one", ())
        assert not previews.bury(session, lost, "of the lost one")
        assert not previews.heartbeat(session, lost, lease_s=10)
    assert "of the lost one" not in answer_of(site, name).caveats


def test_an_overtaken_worker_leaves_the_files_to_who_has_them_now(site, monkeypatch):
    name = uploaded(site, [image()])

    def overtaken(*arguments):
        expire(site, name)
        sweep(site, NoDoorbell())
        with site.database.transaction() as session:
            previews.claim(session, lease_s=10)
        raise NotDicom("too late")

    monkeypatch.setattr(preview, "analyse", overtaken)
    assert read(site)
    assert (row(site, name).state, row(site, name).attempts) == (JobState.RUNNING, 2)
    assert files_left(site, name) == ["upload/0001"]


def test_what_is_forgotten_while_it_is_read_stays_forgotten(site, monkeypatch):
    name = uploaded(site, [image()])
    classify = preview.single_image.classify

    def meanwhile(*arguments):
        previews.forget(site, name)
        return classify(*arguments)

    monkeypatch.setattr(preview.single_image, "classify", meanwhile)
    assert read(site)
    assert row(site, name) is None
    assert not previews.folder(site, name).exists()
    assert trail(site) == []


def test_a_fault_of_ours_is_tried_three_times_and_then_the_files_go(site, monkeypatch):
    monkeypatch.setattr(previews, "AGAIN_S", -1)
    name = uploaded(site, [image()])

    def broken():
        raise RuntimeError("Doe^Jane")

    for attempt in (1, 2, 3):
        assert read(site, broken)
        assert row(site, name).attempts == attempt
        assert (files_left(site, name) == []) is (attempt == 3)
        sweep(site, NoDoorbell())
    assert row(site, name).state is JobState.DEAD
    assert row(site, name).reason == "an internal fault (RuntimeError)"


def test_a_full_disk_is_tried_again_and_said_so(site, monkeypatch):
    monkeypatch.setattr(previews, "AGAIN_S", -1)
    full = replace(site, settings=site.settings.model_copy(update={"disk_refuse_above": 0.0}))
    name = uploaded(site, [image()])
    for _ in range(3):
        assert read(full)
        sweep(site, NoDoorbell())
    assert "% full" in row(site, name).reason


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_long_reading_keeps_its_lease(site, monkeypatch):
    quick = replace(site, settings=site.settings.model_copy(update={"lease_s": 1.0}))
    name = uploaded(site, [image()])
    swept = []

    def slow():
        ends = row(site, name).lease_expires_at + timedelta(seconds=2)

        def kept():
            swept.append(sweep(quick, NoDoorbell())["previews_recovered"])
            return row(site, name).lease_expires_at > ends

        wait_until(kept, 20, lambda: "the lease was not extended")
        return StubNetworks()

    assert read(quick, slow)
    assert not any(swept)
    assert (row(site, name).state, row(site, name).attempts) == (JobState.DONE, 1)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_reading_that_hangs_is_given_back_and_its_worker_ended(site, monkeypatch):
    stuck = replace(site, settings=site.settings.model_copy(update={"job_limit_s": 0.2}))
    uploaded(site, [image()])
    ended = threading.Event()
    monkeypatch.setattr("worker.runner.os.kill", lambda *_: ended.set())
    assert read(stuck, lambda: ended.wait(10) and StubNetworks())
    assert ended.is_set()


def test_a_forgotten_ones_number_is_never_given_again(site):
    first = uploaded(site, [image()])
    number = row(site, first).id
    previews.forget(site, first)
    assert row(site, uploaded(site, [image()])).id > number


def test_workers_that_claim_at_once_get_one_each_the_oldest_first(site):
    names = [uploaded(site, [b""]) for _ in range(3)]
    with site.database.transaction() as session:
        claimed = [previews.claim(session, lease_s=10) for _ in range(4)]
    assert [one and one.name for one in claimed] == [*names, None]


def test_what_is_still_arriving_is_nobodys_to_read(site):
    name = previews.create(site, user_id(site), keep=False)
    assert not read(site)
    with site.database.transaction() as session:
        previews.arrived(session, name, files=1, size=1)
    with pytest.raises(NotFound), site.database.transaction() as session:
        previews.arrived(session, name, files=1, size=1)
    assert read(site)


def test_kept_images_are_those_that_a_scanner_would_have_sent(site):
    files = [image(number=n) for n in (1, 2)]
    name = uploaded(
        site,
        [zipped({"a": files[0], "b": files[1], "c": b"no image", "d": image(Modality="CT")})],
        keep=True,
    )
    assert read(site)
    answer = answer_of(site, name)
    assert answer.studies == [f"{ROOT}.1"]
    assert "2 files: new" in answer.choices[0]
    assert files_left(site, name) == []
    sent = [ingest(site.database, site.store, arrival(make_slice(number=n))) for n in (1, 2)]
    assert sent == ["duplicate", "duplicate"]
    with site.database.reading() as session:
        kept = session.scalars(select(Instance)).all()
    assert {instance.source for instance in kept} == {"UPLOAD"}
    assert len(kept) == 3  # a mistaken modality is no reason to lose an MR image
    assert trail(site)[-1] == ("upload.kept", "reader", 1)


def test_keeping_what_was_half_kept_before_a_kill_is_no_harm(site, monkeypatch):
    monkeypatch.setattr(previews, "AGAIN_S", -1)
    name = uploaded(site, [image(number=1), image(number=2)], keep=True)
    take, taken = store_upload.ingest, []

    def dies(*arguments):
        if taken:
            raise OSError(28, "No space left on device")
        taken.append(take(*arguments))
        return taken[-1]

    monkeypatch.setattr(store_upload, "ingest", dies)
    read(site)
    monkeypatch.undo()
    monkeypatch.setattr(previews, "AGAIN_S", -1)
    expire(site, name)
    sweep(site, NoDoorbell())
    assert read(site)
    assert answer_of(site, name).choices[:2] == ["1 file: new", "1 file: there already"]


def test_what_holds_no_mr_image_is_not_kept_and_says_why(site):
    name = uploaded(site, [b"no image", heavy_image()], keep=True)
    read(site)
    assert row(site, name).reason == "there is no MR image that could be kept"
    assert len(answer_of(site, name).choices) == 2
    with site.database.reading() as session:
        assert session.scalars(select(Instance)).all() == []


def test_housekeeping_forgets_after_an_hour_and_removes_what_killed_processes_left(site):
    monday, tuesday = db_now(-3700), db_now(-3500)
    old, young, ended = (uploaded(site, [image()]) for _ in range(3))
    change(site, old, state=JobState.DONE, uploaded_at=monday, ended_at=monday)
    change(site, young, uploaded_at=tuesday)
    change(site, ended, state=JobState.DONE, ended_at=tuesday)  # and then its worker was killed
    arriving = previews.create(site, user_id(site, "another"), keep=False)
    (previews.folder(site, arriving) / previews.UPLOAD / "0001").write_bytes(b"half")
    leftover = previews.folder(site, "0" * 32)
    (leftover / "upload").mkdir(parents=True)
    assert previews.tidy(site) == 2
    assert row(site, old) is None
    assert not previews.folder(site, old).exists()
    assert not leftover.exists()
    assert files_left(site, young) == ["upload/0001"]
    assert files_left(site, arriving) == ["upload/0001"]
    assert files_left(site, ended) == []
    change(site, arriving, created_at=monday)
    assert previews.tidy(site) == 1
    assert row(site, arriving) is None


def test_uploads_are_counted_among_what_is_in_flight(site):
    name = uploaded(site, [image()])
    change(site, name, uploaded_at=db_now(-60))
    with site.database.reading() as session:
        told = metrics.figures(session)
        assert statistics.in_flight(session).jobs == {(JobKind.PREVIEW, JobState.PENDING): 1}
    assert told.jobs == {(JobKind.PREVIEW, JobState.PENDING): 1}
    assert 59 < told.queue_age_s[JobKind.PREVIEW] < 120
    with site.database.transaction() as session:
        previews.claim(session, lease_s=10)
    expire(site, name)
    with site.database.reading() as session:
        assert statistics.in_flight(session).leases_expired == 1


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
