"""What fills the disk is measured and said; while images are refused for it, everybody sees it."""

import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from db import disk_usage, expiry, reviews, studies
from db.audit import Participant
from db.database import DatabaseUnavailable
from db.disk_usage import Kind
from db.ingest import ingest
from db.models import AuditEvent, Instance, UserRole
from lumbar.store import sizes
from lumbar.store.files import StoreFull
from tests.factories.ages import pass_days
from tests.factories.analyses import analysed
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.site_with_studies import stored_report
from tests.integration.test_registration import arrive_in
from tests.integration.web_client import WebClient, browser_client, sqlite_only
from web import monitoring
from web.app import create_app
from web.audit_trail import AuditTrail
from worker import maintenance

MIB = 2**20


@pytest.fixture
def disk(site, monkeypatch):
    """Sets how many bytes of the disk are used and free."""

    def set_usage(used, free):
        monkeypatch.setattr(type(site.store), "used_and_free", lambda store: (used, free))

    return set_usage


def image_bytes(site, numbers):
    with site.database.reading() as session:
        return sum(
            row.size
            for number in numbers
            for row in studies.images_in_use(session, studies.find(session, f"{ROOT}.{number}").id)
        )


def test_every_byte_is_of_a_kind(site, disk):
    disk(100 * MIB, 100 * MIB)
    for number in (1, 2, 3):
        analysed(site, number)
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.3"), Participant("anna"))
    pass_days(site.database, 8)
    expiry.expire_unread(site)
    analysed(site, 4)
    ingest(site.database, site.store, arrival(make_slice(study=5)))
    analysed(site, 6, report=stored_report(site, 6, 1), destinations=["pacs"])
    analysed(site, 8)
    ingest(site.database, site.store, arrival(make_slice(study=8, PatientID="RIGHT")))
    with site.database.reading() as session:
        waits = select(Instance.size).where(Instance.quarantined.is_not(None))
        correction = session.scalars(waits).one()
    arrived = arrive_in(site.store, make_slice(study=7)).path.stat().st_size
    usage = disk_usage.measure(site)
    kinds = usage.kinds
    assert kinds[Kind.FINISHED] == image_bytes(site, [1, 2, 3])
    assert kinds[Kind.UNREAD] == image_bytes(site, [4, 5])
    assert kinds[Kind.UNDELIVERED] == image_bytes(site, [6])
    assert kinds[Kind.ARRIVED] == arrived
    assert kinds[Kind.CORRECTED] == image_bytes(site, [8]) + correction
    assert kinds[Kind.REPORTS] == len(b"report 6 1")
    assert sum(kinds.values()) == 100 * MIB
    assert list(kinds.values()) == sorted(kinds.values(), reverse=True)
    with site.database.reading() as session:
        assert disk_usage.last_measured(session) == usage


def test_our_own_database_counts_as_ours(site, disk):
    disk(100 * MIB, 0)
    kinds = disk_usage.measure(site).kinds
    (site.settings.home / "lumbar.sqlite").write_bytes(bytes(10 * MIB))
    assert disk_usage.measure(site).kinds[Kind.OTHERS] == kinds[Kind.OTHERS] - 10 * MIB


def test_while_images_are_refused_it_is_said_what_fills_the_disk_and_what_can_be_done(site, disk):
    disk(99 * MIB, MIB)
    analysed(site, 1)
    assert "is being measured" in disk_usage.refusal(site)
    disk_usage.measure(site)
    refusal = disk_usage.refusal(site)
    assert refusal.startswith("The disk is 99% full: new images are refused.")
    assert "files that are not lumbar-triage's (make room there" in refusal
    with capture_logs() as events:
        disk_usage.alert(site)
    (logged,) = events
    assert (logged["event"], logged["log_level"]) == ("disk.images_refused", "error")
    assert logged["bytes_unread"] == image_bytes(site, [1])
    disk(90 * MIB, 10 * MIB)
    assert disk_usage.refusal(site) is None
    with capture_logs() as events:
        disk_usage.alert(site)
    assert [each["event"] for each in events] == ["retention.disk_still_full"]
    disk(MIB, 99 * MIB)
    with capture_logs() as events:
        disk_usage.alert(site)
    assert events == []


def test_it_is_measured_now_and_then_and_more_often_while_the_disk_is_full(site, disk, monkeypatch):
    measured = []
    monkeypatch.setattr(disk_usage, "measure", measured.append)
    clock = [0.0]
    hourly, while_full = (
        maintenance.Throttle(period_s, 1, lambda: clock[0])
        for period_s in (maintenance.MEASURED_EVERY_S, maintenance.FULL_MEASURED_EVERY_S)
    )
    for fill, hours in ((MIB, 3), (90 * MIB, 3)):
        disk(fill, 100 * MIB - fill)
        measured.clear()
        for _ in range(60 * hours):
            maintenance._watch_disk(site, hourly, while_full)
            clock[0] += 60
        assert len(measured) == (3 if fill == MIB else 18)


def test_what_was_measured_before_the_disk_filled_up_is_not_said_to_fill_it(site, disk):
    disk(50 * MIB, 50 * MIB)
    analysed(site, 1)
    disk_usage.measure(site)
    disk(99 * MIB, MIB)
    assert disk_usage.refusal(site).endswith("What fills it is being measured.")
    with capture_logs() as events:
        disk_usage.alert(site)
    assert events == [{"event": "disk.images_refused", "log_level": "error", "fill": 0.99}]


def test_images_being_refused_is_logged_though_the_database_cannot_be_written(
    site, disk, monkeypatch
):
    def fails(site):
        raise DatabaseUnavailable

    monkeypatch.setattr(disk_usage, "measure", fails)
    disk(99 * MIB, MIB)
    due = maintenance.Throttle(60, 1), maintenance.Throttle(60, 1)
    with capture_logs() as events, pytest.raises(DatabaseUnavailable):
        maintenance._watch_disk(site, *due)
    assert [each["event"] for each in events] == ["disk.images_refused"]


@sqlite_only
def test_a_full_disk_of_home_beside_the_stores_refuses_uploads_and_is_said(site, monkeypatch):
    disks = {site.settings.home: (99 * MIB, MIB)}
    monkeypatch.setattr(sizes, "used_and_free", lambda path: disks.get(path, (MIB, 99 * MIB)))
    assert disk_usage.home_full(site) is None  # one disk for both
    monkeypatch.setattr(sizes, "same_disk", lambda *_: False)
    app = create_app(site)
    reader, program = browser_client(app, UserRole.OPERATOR), WebClient(app)
    message = "The disk of LUMBAR_HOME is 99% full: uploads are refused"
    assert disk_usage.refusal(site) is None
    site.store.require_room(site.settings.disk_refuse_above)  # as the receiver asks
    with pytest.raises(StoreFull, match=message):
        disk_usage.require_room(site)
    with capture_logs() as events:
        disk_usage.alert(site)
    assert events == [{"event": "disk.home_full", "log_level": "error", "fill": 0.99}]
    assert message in reader.get("/").text
    ready = program.get("/readyz")
    assert (ready.status_code, ready.text.startswith(message)) == (503, True)
    assert "lumbar_home_disk_fill_ratio 0.99" in program.get("/metrics").text


@sqlite_only
def test_a_page_that_cannot_be_audited_names_the_full_disk(site, monkeypatch):
    def record_view(trail, *seen, **_):
        with site.database.transaction() as session:
            session.execute(text("PRAGMA max_page_count = 1"))  # no page more than there are
            detail = {"larger than a page": "x" * 100_000}
            session.add(AuditEvent(event=seen[0], actor="", detail=detail))

    analysed(site, 1)
    reader = browser_client(create_app(site), UserRole.OPERATOR)
    monkeypatch.setattr(AuditTrail, "record_view", record_view)
    refused = reader.get(f"/studies/{ROOT}.1")
    assert refused.status_code == 503
    assert "its disk is full: make room on it." in refused.text


@sqlite_only
def test_pages_and_metrics_show_that_images_are_refused(site, disk, monkeypatch):
    monkeypatch.setattr(monitoring, "KEPT_S", 0)
    analysed(site, 1)
    app = create_app(site)
    reader, program = browser_client(app, UserRole.OPERATOR), WebClient(app)
    disk(50 * MIB, 50 * MIB)
    disk_usage.measure(site)
    assert "new images are refused." not in reader.get("/").text
    assert "lumbar_disk_images_refused 0.0" in program.get("/metrics").text
    disk(99 * MIB, MIB)
    for path in ("/", "/studies", f"/studies/{ROOT}.1", "/system"):
        assert "The disk is 99% full: new images are refused." in reader.get(path).text, path
    metrics = program.get("/metrics").text
    assert "lumbar_disk_images_refused 1.0" in metrics
    assert 'lumbar_disk_bytes{kind="unread"}' in metrics
    assert "images of studies that have not been read" in reader.get("/system").text
    assert "new images are refused." not in program.get("/sign-in").text  # nobody is signed in


@sqlite_only
def test_metrics_count_quarantined_instances_and_unregistrable_files_apart(site):
    analysed(site, 1)
    ingest(site.database, site.store, arrival(make_slice(study=1, fill=99)))  # other content
    for name in ("1.2_1_a.dcm", "1.2_2_b.dcm"):
        site.store.make_folder(site.store.path("quarantined"))
        site.store.path(f"quarantined/{name}").write_bytes(b"no image")
    metrics = WebClient(create_app(site)).get("/metrics").text
    assert "lumbar_images_quarantined 1.0" in metrics
    assert "lumbar_images_unregistrable 2.0" in metrics
