"""A clock that is wrong for a while: nothing is removed, and nothing waits until tomorrow."""

import threading
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import select, update

from db import (
    audit,
    expiry,
    job_lifecycle,
    operating_time,
    previews,
    retention,
    reviews,
    sessions,
    studies,
)
from db.attempts import HERE, TooManyAttempts
from db.audit import Participant
from db.clock_corrections import correct_times
from db.ingest import ingest
from db.leases import Backoff
from db.models import (
    JobState,
    Maintenance,
    Preview,
    StudyState,
    WebSession,
)
from db.read_models.worklist import waiting, worklist
from db.registrar import Registrar
from db.sign_in import SignInRefused
from db.types import db_now, read_clock
from lumbar.store import shares
from tests.factories.accounts import add_user, signed_in
from tests.factories.ages import pass_days
from tests.factories.analyses import CANAL, SEVERE, analysed
from tests.factories.deliveries import claim_delivery
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.site_with_studies import stored_report
from tests.integration.test_registration import arrive_in
from tests.integration.test_sessions import actor
from tests.integration.upload_factory import RecordingNotifier, create_upload, image, row
from worker.clock_watch import ClockWatch
from worker.sweep import sweep

MINUTE_S, HOUR_S, DAY_S, YEAR_S = 60, 3600, 86_400, 365 * 86_400
UID = f"{ROOT}.1"
TURNS = pytest.mark.parametrize(
    "turned_s", [-56 * YEAR_S, -YEAR_S, -5 * HOUR_S, 5 * HOUR_S, DAY_S, YEAR_S, 12 * YEAR_S]
)


def study(site):
    with site.database.reading() as session:
        return studies.find(session, UID)


def maintain(site):
    """One round of maintenance, as far as it goes by age."""
    operating_time.count(site.database)
    gone = expiry.expire_unread(site), retention.remove_images(site), previews.delete_expired(site)
    return sum(gone)


@TURNS
def test_nothing_is_removed_or_expires_while_the_clock_is_wrong(site, turn, turned_s):
    analysed(site, 1, {CANAL: SEVERE})
    analysed(site, 2)
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.2"), Participant("anna"))
    name = create_upload(site, [image()])
    with site.database.transaction() as session:
        session.execute(update(Preview).values(state=JobState.DONE))
    assert maintain(site) == 0
    for minutes in range(10):
        turn(turned_s + minutes * MINUTE_S)
        assert maintain(site) == 0
    turn(10 * MINUTE_S)
    assert maintain(site) == 0
    with site.database.reading() as session:
        assert len(worklist(session, site.ranking).rows) == 1
        assert waiting(session, site.ranking).severe_expiring == 0
    pass_days(site.database, 2 / 24)
    assert previews.delete_expired(site) == 1
    assert row(site, name) is None


@TURNS
def test_what_ends_while_the_clock_is_wrong_is_kept_as_long_as_any(site, turn, turned_s):
    turn(turned_s)
    operating_time.count(site.database)
    analysed(site, 1)
    analysed(site, 2)
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.2"), Participant("anna"))
    turn(0)
    assert maintain(site) == 0
    pass_days(site.database, 6.9)
    assert maintain(site) == 0
    pass_days(site.database, 0.2)
    assert expiry.expire_unread(site) == 1
    pass_days(site.database, 22.8)
    assert retention.remove_images(site) == 0
    pass_days(site.database, 0.2)
    assert retention.remove_images(site) == 2


def test_operating_time_goes_by_the_clock_in_small_steps(site, turn):
    def after(seconds):
        turn(seconds)
        operating_time.count(site.database)
        with site.database.reading() as session:
            return operating_time.read(session) - began

    began = 0
    began = after(0)
    assert after(60.4) in (60, 61)
    assert after(120.8) in (120, 121)  # nothing is lost by rounding
    assert after(YEAR_S) in range(420, 423)  # five minutes
    assert after(YEAR_S + 60) in range(480, 483)
    assert after(-YEAR_S) in range(480, 483)
    assert after(60 - YEAR_S) in range(540, 543)


def test_two_processes_count_the_same_time_once(site, turn):
    def counted():
        with site.database.reading() as session:
            row = session.scalars(select(Maintenance)).one()
            return row.operating_s, row.read_at

    operating_time.count(site.database)  # the copied database may be older than the longest step
    began, began_at = counted()
    for minute in range(1, 11):
        turn(minute * MINUTE_S)
        counting = [
            threading.Thread(target=operating_time.count, args=(site.database,)) for _ in range(2)
        ]
        for thread in counting:
            thread.start()
        for thread in counting:
            thread.join()
    ended, ended_at = counted()
    assert timedelta(seconds=ended - began) == ended_at - began_at > timedelta(minutes=9)


def test_a_job_that_was_to_be_retried_when_the_clock_was_ahead_is_done_now(site, turn):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["pacs"])
    turn(DAY_S)
    with site.database.transaction() as session:
        job = claim_delivery(session)
        job_lifecycle.release(session, job, "the PACS is unavailable", Backoff(9, 60, 60))
    turn(0)
    notifier = RecordingNotifier()
    assert sweep(site, notifier)["times_corrected"] == 1
    with site.database.transaction() as session:
        assert claim_delivery(session) is not None


def test_a_wait_that_is_permitted_is_not_cut_short(site):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["pacs"])
    longest_s = site.settings.retry_longest_s
    with site.database.transaction() as session:
        job = claim_delivery(session)
        job_lifecycle.release(session, job, "away", Backoff(9, longest_s, longest_s))
    assert correct_times(site) == 0


def test_a_lost_workers_lease_from_when_the_clock_was_ahead_runs_out(site, turn):
    ingest(site.database, site.store, arrival(make_slice()))
    with site.database.transaction() as session:
        studies.complete(session, study(site).id)
    turn(DAY_S)
    with site.database.transaction() as session:
        job_lifecycle.claim_analysis(session, lease_s=site.settings.lease_s)
    turn(0)
    sweep(site, RecordingNotifier())
    assert study(site).state is StudyState.ANALYSING  # its worker may be alive
    turn(site.settings.lease_s + 1)
    assert sweep(site, RecordingNotifier())["jobs_recovered"] == 1


@pytest.mark.parametrize("turned_s", [DAY_S, YEAR_S, -56 * YEAR_S])
def test_a_study_received_by_a_wrong_clock_completes_and_waits_like_others(site, turn, turned_s):
    turn(turned_s)
    operating_time.count(site.database)
    ingest(site.database, site.store, arrival(make_slice()))
    turn(0)
    operating_time.count(site.database)
    assert sweep(site, RecordingNotifier())["studies_completed"] == 0  # it may not be quiet yet
    with site.database.reading() as session:
        received = read_clock(session) - study(site).last_received_at
        (listed,) = worklist(session, site.ranking).rows
    assert received < timedelta(minutes=6)  # the clock's steps count at most five
    assert listed.waiting_s < 6 * MINUTE_S
    turn(130)
    assert sweep(site, RecordingNotifier())["studies_completed"] == 1


@pytest.mark.parametrize("turned_s", [-56 * YEAR_S])
def test_a_clock_that_has_not_been_set_corrects_nothing(site, turn, turned_s):
    ingest(site.database, site.store, arrival(make_slice()))
    before = study(site).last_received_at
    turn(turned_s)
    assert correct_times(site) == 0
    turn(0)
    assert study(site).last_received_at == before


def test_a_clock_that_is_turned_ahead_takes_no_job_from_a_living_worker(site, turn):
    ingest(site.database, site.store, arrival(make_slice(study=1)))
    with site.database.transaction() as session:
        studies.complete(session, study(site).id)
        claimed = job_lifecycle.claim_analysis(session, lease_s=site.settings.lease_s)
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    timer = count(0, 1).__next__
    watch, notifier = ClockWatch(lambda: float(timer())), RecordingNotifier()
    for passed_s in range(3):
        turn(passed_s)
        sweep(site, notifier, watch=watch)
    turn(DAY_S)
    for _ in range(5):
        done = sweep(site, notifier, watch=watch)
        assert (done["jobs_recovered"], done["studies_completed"]) == (0, 0)
        turn(db_now.turned_s + 1)
    with site.database.transaction() as session:
        from db import leases

        assert leases.extend(session, claimed.lease, lease_s=site.settings.lease_s)
    for _ in range(200):  # a study that nobody sends to is quiet, by any clock
        completed = sweep(site, notifier, watch=watch)["studies_completed"]
        with site.database.transaction() as session:
            assert leases.extend(session, claimed.lease, lease_s=site.settings.lease_s)
        if completed:
            break
        turn(db_now.turned_s + 1)
    assert completed


@pytest.mark.parametrize("every_s", [5, 100])
def test_a_clock_that_is_turned_again_and_again_holds_nothing_up_for_ever(site, turn, every_s):
    ingest(site.database, site.store, arrival(make_slice()))
    passed = [0.0]
    watch, notifier = ClockWatch(lambda: passed[0]), RecordingNotifier()
    for n in count():
        passed[0] = n * min(every_s, 40)
        turn(passed[0] + 6 * (passed[0] // every_s % 2))
        if sweep(site, notifier, watch=watch)["studies_completed"]:
            break
        assert passed[0] < 1300
    assert passed[0] >= 600


def test_an_arrived_file_from_ahead_is_registered_when_its_process_has_died(site, monkeypatch):
    ahead = shares.time_ns() + DAY_S * 10**9
    with monkeypatch.context() as patch:
        patch.setattr(shares, "time_ns", lambda: ahead)
        arrive_in(site.store, make_slice())
    assert Registrar(site).register_arrived(min_age_s=10) == 1


def test_the_audit_trail_is_forwarded_whole_after_the_clock_was_ahead(site, turn):
    class Server:
        def __init__(self):
            self.received = []

        def send(self, lines):
            self.received += [line.event for line in lines]

    turn(-HOUR_S)
    note(site, "before")
    turn(DAY_S)
    note(site, "ahead")
    turn(-2 * MINUTE_S)
    note(site, "after")
    turn(0)
    note(site, "just now")
    turn(DAY_S)
    note(site, "ahead again")
    turn(0)
    note(site, "now")
    server = Server()
    audit.forward(site.database, server)
    assert server.received == ["before", "ahead", "after"]
    with site.database.reading() as session:
        assert len(audit.lines_after(session, 0, 10)) == 6  # the command line prints all
    turn(2 * MINUTE_S)
    audit.forward(site.database, server)
    assert server.received[3:] == ["just now", "ahead again", "now"]


def note(site, event):
    with site.database.transaction() as session:
        audit.note(session, event, Participant("anna"))


@pytest.fixture
def anna(database):
    return add_user(database, "anna")


def test_sessions_survive_a_wrong_clock_and_none_outlives_its_hours(database, anna, turn):
    cookie = signed_in(database)
    turn(YEAR_S)
    assert actor(database, cookie) is None  # as far as anybody can tell
    ahead = signed_in(database, address="10.0.0.2")
    turn(0)
    assert actor(database, cookie).name == "anna"  # it was not deleted
    assert actor(database, ahead) is None  # else it would last for a year
    turn(-30 * MINUTE_S)
    assert actor(database, cookie).name == "anna"
    turn(13 * HOUR_S)
    assert actor(database, cookie) is None


def test_a_session_that_was_used_ahead_is_used_from_now(database, anna, turn):
    cookie = signed_in(database)
    turn(50 * MINUTE_S)
    with database.transaction() as session:
        sessions.record_use(session, cookie)
    turn(0)
    with database.transaction() as session:
        sessions.record_use(session, cookie)
        used = session.scalars(select(WebSession.last_used_at)).one()
        assert abs(used - read_clock(session)) < timedelta(minutes=1)


def test_ended_sessions_are_forgotten_by_count(database, anna, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS_KEPT", 3)
    cookies = [signed_in(database, address=f"10.0.0.{n}") for n in range(5)]
    assert [actor(database, cookie) is not None for cookie in cookies] == [False] * 2 + [True] * 3


def test_refused_attempts_from_when_the_clock_was_ahead_lock_nobody_out(database, anna, turn):
    turn(DAY_S)
    for _ in range(HERE.at_once):
        with pytest.raises(SignInRefused):
            signed_in(database, password="wrong")
    with pytest.raises(TooManyAttempts):
        signed_in(database)
    turn(0)
    assert signed_in(database)


@pytest.mark.parametrize("zone", ["America/St_Johns", "Australia/Lord_Howe"])
def test_time_zones_and_summer_time_change_no_decision(site, monkeypatch, zone):
    """The database's clock is UTC whatever the zones of machine and server are."""
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    if site.database.engine.dialect.name == "postgresql":
        with site.database.engine.connect() as connection:
            connection.exec_driver_sql(
                f"ALTER DATABASE \"{site.database.engine.url.database}\" SET timezone = '{zone}'"
            )
            connection.commit()
        site.database.engine.dispose()
    ingest(site.database, site.store, arrival(make_slice()))
    with site.database.transaction() as session:
        studies.complete(session, study(site).id)
        assert job_lifecycle.claim_analysis(session, lease_s=10) is not None
    assert correct_times(site) == 0
    with site.database.reading() as session:
        assert job_lifecycle.expired(session) == []
        (listed,) = worklist(session, site.ranking).rows
        assert listed.waiting_s < 5 * MINUTE_S
        assert abs(session.scalars(select(Maintenance.read_at)).one() - read_clock(session)) < (
            timedelta(days=1)
        )
    monkeypatch.undo()
    time.tzset()


@pytest.mark.postgresql
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_correction_waits_for_no_study_that_another_transaction_writes(site, turn):
    turn(DAY_S)
    ingest(site.database, site.store, arrival(make_slice()))
    turn(0)
    with site.database.transaction() as other:
        studies.lock(other, study(site).id)
        assert correct_times(site) == 0
    assert correct_times(site) == 1
