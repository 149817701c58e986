"""One delivery: what is known of it, what is sent again, and the lease looked at before."""

import pytest

from db.models import (
    JobState,
)
from db.types import db_now
from lumbar.peers.outcomes import NotConnected, Unreachable
from tests.factories.deliveries import claim_delivery
from tests.factories.lanes import LaneInMemory, report, report_again


@pytest.mark.parametrize(
    ("lists", "confirm", "outcome"),
    [(True, "", "confirmed"), (None, "", "accepted"), (False, "?confirm=no", "accepted")],
)
def test_what_is_known_of_a_delivery(site, monkeypatch, lists, confirm, outcome):
    lane = LaneInMemory(site, monkeypatch, confirm=confirm)
    lane.peer.lists = lists
    report(site, 1)
    lane.send_all()
    assert lane.outcomes() == [outcome]
    assert lane.states() == ["done"]


def test_what_the_destination_does_not_list_is_asked_again_then_sent_again_then_shown(
    site, monkeypatch
):
    lane = LaneInMemory(site, monkeypatch, absent_after_minutes=10)
    lane.peer.lists = False
    report(site, 1)
    lane.send_all()
    (job,) = lane.jobs()
    assert (job.state, job.sends) == (JobState.PENDING, 1)
    assert "does not list it" in job.last_error
    assert lane.outcomes() == ["accepted"]
    for sends in (2, 3):
        lane.change(run_after=db_now(), sent_at=db_now(-599))
        lane.send_all()
        assert len(lane.peer.sent) == sends - 1
        lane.change(run_after=db_now(), sent_at=db_now(-601))
        lane.send_all()
        assert len(lane.peer.sent) == sends
    lane.change(run_after=db_now(), sent_at=db_now(-601))
    lane.send_all()
    assert lane.states() == ["dead"]
    assert lane.outcomes() == ["absent"]
    assert "sent 3 times" in lane.jobs()[0].last_error
    assert len(set(lane.peer.sent)) == 1


def test_what_is_listed_a_little_later_is_confirmed_without_sending_it_again(site, lane):
    lane.peer.lists = False
    report(site, 1)
    lane.send_all()
    lane.peer.lists = True
    lane.change(run_after=db_now())
    lane.send_all()
    assert (lane.outcomes(), len(lane.peer.sent)) == (["confirmed"], 1)


@pytest.mark.parametrize("later", ["listed", "unanswered"])
def test_a_peer_that_takes_reports_and_answers_no_question_holds_nothing_up(site, lane, later):
    for number in (1, 2):
        report(site, number)

    def unreachable(_):
        raise Unreachable("it did not finish within 120 s")

    lane.peer.our_reports = lane.peer.holds = unreachable
    assert lane.send_all() == 2
    assert (len(lane.peer.sent), lane.hold()) == (2, None)
    assert lane.states() == ["pending", "pending"]
    if later == "listed":
        del lane.peer.holds
    lane.change(run_after=db_now(), sent_at=db_now(-601))
    lane.send_all()
    assert lane.states() == ["done", "done"]
    assert lane.outcomes() == ["confirmed" if later == "listed" else "accepted"] * 2
    assert len(lane.peer.sent) == 2


def test_the_lease_is_looked_at_just_before_sending(site, lane, monkeypatch):
    """A worker that was stopped, and continued after another had taken over, sends nothing."""
    report(site, 1)
    reports_of = lane.peer.our_reports

    def taken_over_meanwhile(study):
        lane.change(lease_token="another")
        return reports_of(study)

    monkeypatch.setattr(lane.peer, "our_reports", taken_over_meanwhile)
    lane.do_next()
    assert lane.peer.sent == []


def test_a_report_that_was_replaced_meanwhile_is_cancelled_not_sent(site, lane, monkeypatch):
    report(site, 1)

    def replaced_meanwhile(study):
        monkeypatch.setattr(lane.peer, "our_reports", lambda study: ())
        report_again(site, 1, 2)
        return ()

    monkeypatch.setattr(lane.peer, "our_reports", replaced_meanwhile)
    lane.send_all()
    assert [content.decode() for content in lane.peer.sent] == ["report 1 2"]
    assert lane.states() == ["cancelled", "done"]


def test_of_one_study_only_one_report_is_under_way_to_a_destination(site, lane):
    report(site, 1)
    with site.database.transaction() as session:
        assert claim_delivery(session).revision == 1
    report_again(site, 1, 2)
    with site.database.transaction() as session:
        assert claim_delivery(session) is None


@pytest.mark.parametrize("away", [Unreachable("it is silent"), NotConnected("nothing is there")])
def test_a_report_that_was_not_listed_is_sent_again_though_the_peer_was_away(site, lane, away):
    lane.peer.lists = False
    report(site, 1)
    lane.send_all()

    def holds(reference):
        raise away

    answers, lane.peer.holds = lane.peer.holds, holds
    lane.change(run_after=db_now(), sent_at=db_now(-601))
    lane.send_all()
    assert lane.states() == ["pending"]
    lane.peer.holds, lane.peer.lists = answers, False
    lane.change(run_after=db_now(), sent_at=db_now(-601))
    lane.send_all()
    assert len(lane.peer.sent) == 2


@pytest.mark.parametrize(
    ("silent", "state"),
    [(Unreachable("it is silent"), "done"), (NotConnected("nothing is there"), "pending")],
)
def test_success_is_enough_where_questions_are_taken_and_never_answered(site, lane, silent, state):
    def holds(reference):
        raise silent

    lane.peer.holds = holds
    report(site, 1)
    lane.send_all()
    lane.change(run_after=db_now(), sent_at=db_now(-601))
    lane.send_all()
    assert lane.states() == [state]
    assert lane.outcomes() == ["accepted"]
