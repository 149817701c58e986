"""What operators do about all jobs of a destination."""

import pytest
from sqlalchemy import select

from db import (
    deliveries,
    destination_actions,
    operator_actions,
)
from db.audit import Participant
from db.models import (
    Job,
)
from lumbar.errors import NotFound, Permanent
from lumbar.peers.outcomes import Refused, Unreachable
from tests.factories.analyses import analysed
from tests.factories.deliveries import claim_delivery
from tests.factories.lanes import LaneInMemory, report, report_again
from tests.integration.site_with_studies import stored_report


def test_all_jobs_of_a_destination_are_retried_at_once(site, lane):
    for number in (1, 2, 3):
        report(site, number)
    lane.fails(Refused("refused"))
    assert lane.do_next()
    lane.fails(Unreachable("down"))
    lane.send_all()
    with site.database.transaction() as session:
        assert destination_actions.retry_all(session, "pacs", Participant("anna")) == 3
    lane.works()
    assert lane.send_all() == 3
    assert lane.states() == ["done"] * 3
    with site.database.transaction() as session, pytest.raises(NotFound):
        destination_actions.retry_all(session, "pacs", Participant("anna"))


def test_retrying_leaves_dead_deliveries_of_replaced_reports(site, lane):
    report(site, 1)
    lane.fails(Refused("refused"))
    lane.send_all()
    report_again(site, 1, 2)
    with site.database.transaction() as session:
        assert destination_actions.retry_all(session, "pacs", Participant("anna")) == 1
    assert lane.states() == ["dead", "pending"]


def test_jobs_of_an_unknown_destination_wait_and_can_be_rerouted(site, lane):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["old", "pacs"])
    analysed(site, 2, report=stored_report(site, 2, 1), destinations=["old"])
    lane.send_all()
    assert lane.states() == ["pending", "done", "pending"]
    with site.database.transaction() as session:
        assert destination_actions.reroute(session, "old", "pacs", Participant("anna")) == 2
    lane.send_all()
    assert lane.states() == ["cancelled", "done", "done"]
    with site.database.transaction() as session, pytest.raises(Permanent):
        destination_actions.reroute(session, "pacs", "pacs", Participant("anna"))


@pytest.mark.parametrize("ended", ["cancelled", "dead"])
def test_a_report_rerouted_to_where_its_job_has_ended_goes_there_by_that_job(site, lane, ended):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["old", "pacs"])
    with site.database.transaction() as session:
        pacs = session.scalars(select(Job.id).where(Job.destination == "pacs")).one()
        if ended == "cancelled":
            operator_actions.cancel(session, pacs, Participant("anna"))
    if ended == "dead":
        lane.fails(Refused("refused"))
        lane.send_all()
        lane.works()
    with site.database.transaction() as session:
        destination_actions.reroute(session, "old", "pacs", Participant("anna"))
    lane.send_all()
    assert lane.states() == ["cancelled", "done"]


@pytest.mark.parametrize("confirm", ["", "?confirm=no"])
def test_a_rerouted_report_is_sent_whatever_the_first_destination_has_said(
    site, monkeypatch, confirm
):
    lane = LaneInMemory(site, monkeypatch, confirm=confirm)
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["archive"])
    with site.database.transaction() as session:
        claimed = claim_delivery(session, "archive")
        deliveries.record_sent(session, claimed, "0000")
        deliveries.not_listed(session, claimed, 600, None)
    with site.database.transaction() as session:
        assert destination_actions.reroute(session, "archive", "pacs", Participant("anna")) == 1
    lane.send_all()
    assert [content.decode() for content in lane.peer.sent] == ["report 1 1"]
    assert lane.states() == ["done"]
