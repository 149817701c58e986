"""A destination that fails is held: its reports wait, one probes, and none dies of time."""

import threading

import pytest
from sqlalchemy import update

from db import (
    destination_actions,
    operator_actions,
)
from db.audit import Participant
from db.models import Delivery, HeldDestination, Job, JobState
from db.types import db_now
from lumbar.peers.outcomes import Busy, NotAuthorised, ProcessingFailed, Refused, Unreachable
from tests.factories.deliveries import claim_delivery
from tests.factories.lanes import LaneInMemory, files_of, report
from tests.integration.upload_factory import RecordingNotifier
from worker import lanes
from worker.sweep import sweep


def test_a_night_without_the_pacs_costs_one_attempt_a_wait_and_no_report(site, lane):
    for number in range(1, 6):
        report(site, number)
    lane.fails(Unreachable("pacs does not answer"))
    assert lane.send_all() == 1
    for _ in range(30):  # the probes of a night; each is one attempt
        lane.later()
        assert lane.send_all() == 1
    assert lane.states() == ["pending"] * 5
    assert lane.hold().failures == 31
    assert sum(job.attempts for job in lane.jobs()) == 31
    assert lane.hold().last_error == "pacs does not answer"
    lane.works()
    lane.later()
    assert lane.send_all() == 5
    assert lane.states() == ["done"] * 5
    assert lane.hold() is None


def test_only_one_worker_at_a_time_probes(site, lane):
    for number in (1, 2):
        report(site, number)
    lane.fails(Busy("pacs is out of resources"))
    lane.send_all()
    lane.later()
    with site.database.transaction() as session:
        assert claim_delivery(session) is not None
        assert claim_delivery(session) is None
    assert not lane.do_next()


def test_held_reports_flow_in_the_order_of_urgency(site, lane):
    for number in (1, 2, 3):
        report(site, number)
    lane.fails(Unreachable("down"))
    lane.send_all()
    with site.database.transaction() as session:
        session.execute(update(Job).where(Job.study_id == 3).values(priority=3))
    lane.works()
    lane.later()
    lane.send_all()
    sent = [content.decode() for content in lane.peer.sent]
    assert sent == ["report 3 1", "report 1 1", "report 2 1"]


def test_a_report_that_alone_fails_does_not_hold_the_others(site, lane):
    for number in (1, 2):
        report(site, number)
    lane.fails(ProcessingFailed("pacs failed to store it"))
    assert lane.send_all() == 2
    assert lane.hold() is None
    assert [job.attempts for job in lane.jobs()] == [1, 1]
    assert lane.states() == ["pending"] * 2


def test_what_is_refused_is_dead_and_shows_that_the_destination_answers(site, lane):
    report(site, 1)
    report(site, 2)
    lane.fails(NotAuthorised("pacs does not permit it"))
    lane.send_all()
    assert lane.hold() is not None
    lane.fails(Refused("pacs refused it"))
    lane.later()
    lane.send_all()
    assert lane.states() == ["dead", "dead"]


def test_failing_for_days_and_often_makes_a_job_dead_and_the_next_one_probes(site, lane):
    for number in (1, 2):
        report(site, number)
    lane.fails(Unreachable("down"))
    for _ in range(4):
        lane.later()
        lane.send_all()
    first, second = lane.jobs()
    assert [first.attempts, second.attempts] == [2, 2]
    assert lane.states() == ["pending", "pending"]
    with site.database.transaction() as session:
        long_ago = first.first_failed_s - 8 * 24 * 3600
        session.execute(update(Job).where(Job.id == first.id).values(first_failed_s=long_ago))
    lane.later()
    lane.send_all()
    assert lane.states() == ["dead", "pending"]
    lane.later()
    lane.send_all()
    assert [job.attempts for job in lane.jobs()] == [3, 3]


def test_a_wrong_clock_makes_no_job_dead(site, lane):
    report(site, 1)
    lane.fails(Unreachable("down"))
    for _ in range(4):
        lane.change(first_failed_at=db_now(-365 * 24 * 3600))
        lane.later()
        lane.send_all()
    assert lane.states() == ["pending"]


@pytest.mark.parametrize("probe", ["", "?probe=echo"])
def test_a_report_that_upsets_the_destination_does_not_hold_the_others(site, monkeypatch, probe):
    lane = LaneInMemory(site, monkeypatch, confirm=probe)
    for number in (1, 2, 3):
        report(site, number)

    def fail_for_the_first(file, **_):
        if file.read_bytes() == b"report 1 1":
            raise Busy("pacs answers with HTTP 500")
        return send(file)

    send, lane.peer.send = lane.peer.send, fail_for_the_first
    for _ in range(6):
        lane.later()
        lane.send_all()
    assert lane.states() == ["pending", "done", "done"]
    assert lane.hold() is None
    report(site, 4)
    assert lane.send_all() == 1
    assert lane.states()[-1] == "done"


def test_a_destination_that_echoes_and_takes_nothing_is_tried_less_and_less_often(
    site, monkeypatch
):
    lane = LaneInMemory(site, monkeypatch, confirm="?probe=echo")
    report(site, 1)

    def full(file, **_):
        raise Busy("pacs is out of resources")

    lane.peer.send = full
    for _ in range(5):
        lane.later()
        lane.send_all()
    assert (lane.hold().failures, lane.peer.tested) == (5, 4)


def test_a_destination_that_refuses_the_echo_is_tried_all_the_same(site, monkeypatch):
    lane = LaneInMemory(site, monkeypatch, confirm="?probe=echo")
    report(site, 1)
    lane.fails(Unreachable("down"))
    lane.send_all()
    lane.works()

    def refused():
        raise Refused("pacs does not offer verification")

    lane.peer.test = refused
    lane.later()
    assert lane.send_all() == 1
    assert lane.states() == ["done"]


def test_a_hold_ends_with_the_last_job(site, lane):
    report(site, 1)
    lane.fails(Unreachable("down"))
    lane.send_all()
    with site.database.transaction() as session:
        assert destination_actions.cancel_all(session, "pacs", Participant("anna")) == 1
    assert lane.hold() is None
    report(site, 2)
    lane.send_all()
    with site.database.transaction() as session:
        operator_actions.cancel(session, lane.jobs()[1].id, Participant("anna"))
    assert lane.hold() is not None
    lane.send_all()
    assert lane.hold() is None


def test_a_probe_that_is_due_further_ahead_than_the_longest_wait_is_due(site, lane):
    report(site, 1)
    lane.fails(Unreachable("down"))
    lane.send_all()
    with site.database.transaction() as session:
        session.execute(update(HeldDestination).values(probe_after=db_now(24 * 3600)))
    lane.works()
    assert lane.send_all() == 1


def test_faults_of_ours_are_counted_apart_from_what_is_temporary(site, lane):
    report(site, 1)
    lane.fails(Unreachable("down"))
    for _ in range(5):
        lane.later()
        lane.send_all()
    lane.fails(RuntimeError("a fault"))
    lane.later()
    lane.send_all()
    (job,) = lane.jobs()
    assert (job.state, job.faults, job.attempts) == (JobState.PENDING, 1, 6)


def test_a_destination_is_probed_by_an_echo_where_the_settings_say_so(site, monkeypatch):
    lane = LaneInMemory(site, monkeypatch, confirm="?probe=echo")
    for number in (1, 2):
        report(site, number)
    lane.fails(Unreachable("down"))
    lane.send_all()
    for _ in range(3):
        lane.later()
        assert lane.send_all() == 0
    assert lane.peer.tested == 3
    assert [job.attempts for job in lane.jobs()] == [1, 0]
    lane.works()
    lane.later()
    assert lane.send_all() == 2


def test_a_probe_that_never_reached_the_destination_does_not_count(site, lane):
    for number in (1, 2):
        report(site, number)
    lane.fails(Unreachable("down"))
    lane.send_all()
    site.store.path(files_of(site)[0]).unlink()
    lane.works()
    lane.later()
    assert lane.send_all() == 2
    assert lane.states() == ["pending", "done"]


def test_one_taken_while_the_clock_was_ahead_is_not_another_that_was_taken_since(site, lane):
    report(site, 1)
    lane.send_all()
    with site.database.transaction() as session:
        session.execute(update(Delivery).values(delivered_at=db_now(86_400)))
    for number in range(2, 6):
        report(site, number)
    lane.fails(Unreachable("down"))
    for _ in range(4):
        lane.later()
        lane.send_all()
    failures = lane.hold().failures
    lane.later()
    assert lane.send_all() == 1  # the probe, and no other
    assert lane.hold().failures == failures + 1


def test_a_reports_own_earlier_success_is_not_another_that_was_taken_since(site, lane):
    report(site, 1)
    lane.fails(Unreachable("down"))
    lane.send_all()
    lane.works()
    lane.peer.lists = False
    lane.later()
    lane.send_all()
    assert lane.hold() is None
    lane.fails(Unreachable("down"))
    lane.change(run_after=db_now(), sent_at=db_now(-601))
    lane.send_all()  # absent, so it is sent again
    assert lane.hold() is not None


def test_lost_workers_make_no_delivery_dead_and_another_report_probes(site, lane):
    for number in (1, 2):
        report(site, number)
    lane.fails(Unreachable("down"))
    lane.send_all()
    probed = set()
    for _ in range(24):
        lane.later()
        with site.database.transaction() as session:
            claimed = claim_delivery(session)
            session.execute(update(Job).values(lease_expires_at=db_now(-1)))
        probed.add(claimed.lease.row_id)
        assert sweep(lane.site, RecordingNotifier())["jobs_recovered"] == 1
    assert lane.states() == ["pending", "pending"]
    assert len(probed) == 2


def test_retrying_one_job_probes_its_held_destination(site, lane):
    report(site, 1)
    lane.fails(Unreachable("down"))
    lane.send_all()
    lane.works()
    assert lane.send_all() == 0
    with site.database.transaction() as session:
        operator_actions.retry(session, lane.jobs()[0].id, Participant("anna"))
    assert lane.send_all() == 1
    assert lane.states() == ["done"]


@pytest.mark.parametrize("error", [Refused("HTTP 404"), NotAuthorised("HTTP 403")])
def test_a_destination_that_answers_but_not_questions_is_probed_by_a_job(site, monkeypatch, error):
    lane = LaneInMemory(site, monkeypatch, confirm="?probe=echo")
    report(site, 1)
    lane.fails(Unreachable("down"))
    lane.send_all()
    lane.works()

    def test():
        raise error

    lane.peer.test = test
    lane.later()
    assert lane.send_all() == 1
    assert lane.states() == ["done"]


def test_what_is_under_way_when_the_lanes_stop_is_due_again_at_once(site, monkeypatch):
    """A peer that drips does not let a stop last until the delivery's own limit."""
    monkeypatch.setattr(lanes, "STOP_S", 0.1)
    lane = LaneInMemory(site, monkeypatch)
    del lane.site.settings.destinations["archive"]
    sending, closed = threading.Event(), threading.Event()

    def drips():
        sending.set()
        assert closed.wait(30)
        raise Unreachable("the process that talks to pacs ended")

    lane.peer.fails, lane.peer.close = drips, closed.set
    report(site, 1)
    stop = threading.Event()
    running = threading.Thread(target=lanes.run, args=(lane.site, stop))
    running.start()
    assert sending.wait(30)
    stop.set()
    running.join(30)
    assert not running.is_alive()
    assert lane.states() == ["pending"]
    assert lane.hold() is None
