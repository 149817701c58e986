"""Reports that are not sent as they are: damaged, or not replacing what a destination has."""

import itertools

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from db import job_lifecycle, reports, reviews, studies
from db.audit import Participant
from db.models import (
    Delivery,
    Instance,
    ReportRow,
    Study,
    StudyState,
)
from db.read_models.worklist import worklist
from db.studies import StudyEvent
from db.types import db_now
from lumbar.peers import HeldReport
from lumbar.peers.outcomes import Unreachable
from lumbar.spine.provenance import TrainedOn
from tests.factories.analyses import CANAL, NORMAL, SEVERE, analysed, bundle, findings_with
from tests.factories.instances import ROOT
from tests.factories.lanes import SR, LaneInMemory, analyse, files_of, report, report_again, study
from tests.integration.site_with_studies import stored_report


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_report_is_not_sent_but_made_again(site, lane, damage):
    report(site, 1)
    report(site, 2)  # the disk is there
    (file, _) = files_of(site)
    path = site.store.path(file)
    path.unlink() if damage == "missing" else path.write_bytes(b"repor")
    lane.send_all()
    assert [content.decode() for content in lane.peer.sent] == ["report 2 1"]
    assert lane.states() == ["pending", "done"]  # until its successor is there
    assert study(site, 1).state is StudyState.QUEUED
    assert study(site, 1).revision == 2
    analyse(site, stored_report(site, 1, 2))
    assert lane.states() == ["cancelled", "done", "pending"]


def test_one_whose_images_are_gone_is_dead_with_the_reason(site, lane):
    report(site, 1)
    report(site, 2)
    site.store.path(files_of(site)[0]).unlink()
    with site.database.transaction() as session:
        session.execute(update(Instance).values(removed_at=db_now()))
    lane.send_all()
    assert lane.states()[0] == "dead"
    assert "cannot be made again" in lane.jobs()[0].last_error


def test_reports_wait_while_their_disk_is_away(site, lane):
    report(site, 1)
    folder = site.store.path("reports")
    away = folder.rename(folder.with_name("away"))
    for _ in range(25):
        lane.change(run_after=db_now())
        lane.send_all()
    assert lane.states() == ["pending"]
    assert "mount the disk" in lane.jobs()[0].last_error
    away.rename(folder)
    lane.change(run_after=db_now())
    lane.send_all()
    assert lane.states() == ["done"]


def test_what_only_the_destination_remembers_is_replaced_by_a_report_that_names_it(site, lane):
    """As after a deletion of the study here, or where the database is an older copy."""
    report(site, 1)
    lane.peer.held = (HeldReport("1.3", SR, "1.9.1", 4), HeldReport("1.3", SR, "1.4.1.1", 5))
    with capture_logs() as logged:
        lane.send_all()
    assert lane.peer.sent == []
    (found_there,) = (event for event in logged if event["event"] == "delivery.unknown_reports")
    assert found_there["reports"] == 1
    with site.database.reading() as session:
        found = session.scalars(select(ReportRow).where(ReportRow.file.is_(None))).one()
        assert (found.sop_instance_uid, found.number) == ("1.9.1", 4)
        assert reports.next_number(session, 1) == 5
        # the stored one is there, too, as the destination says
        assert [row.sop_instance_uid for row in reports.current_reports(session, 1)] == [
            "1.4.1.1",
            "1.9.1",
        ]
    assert study(site, 1).state is StudyState.QUEUED
    assert lane.states() == ["pending"]


def test_a_report_whose_answer_was_lost_is_replaced_once_the_destination_lists_it(site, lane):
    report(site, 1)

    def lost(file, **_):
        raise Unreachable("pacs did not respond in time")

    send, lane.peer.send = lane.peer.send, lost
    lane.send_all()
    lane.peer.send = send
    report_again(site, 1, 2)  # a late image
    lane.peer.held = (HeldReport("1.3", SR, "1.4.1.1", 1),)
    lane.later()
    lane.send_all()
    assert lane.peer.sent == []
    assert study(site, 1).state is StudyState.QUEUED
    with site.database.reading() as session:
        assert [row.revision for row in reports.current_reports(session, 1)] == [1]
    replacing = stored_report(site, 1, 3)
    replacing.predecessor_ids = [1]
    analyse(site, replacing)
    lane.later()
    lane.send_all()
    assert [content.decode() for content in lane.peer.sent] == ["report 1 3"]


def test_each_destination_gets_a_report_that_names_what_it_has(site):
    """A found report at one destination is named, though another already has a successor."""
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["pacs", "archive"])
    with site.database.transaction() as session:
        found = ReportRow(
            study_id=1,
            revision=0,
            sop_class_uid=SR,
            sop_instance_uid="1.9.1",
            series_instance_uid="1.3",
        )
        session.add(found)
        session.flush()
        session.add_all(
            Delivery(report_id=at, destination=name, status="0000", outcome="accepted")
            for at, name in ((found.id, "pacs"), (1, "archive"))
        )
        session.get_one(ReportRow, 1).predecessor_ids = [found.id]
    with site.database.reading() as session:
        current = {row.sop_instance_uid for row in reports.current_reports(session, 1)}
    assert current == {"1.9.1", "1.4.1.1"}


def test_a_report_of_an_ended_later_revision_without_one_is_dead_not_silent(site, lane):
    report(site, 1)
    report(site, 2)
    site.store.path(files_of(site)[0]).unlink()
    with site.database.transaction() as session:
        session.execute(update(Study).where(Study.id == 1).values(revision=2, state="failed"))
    lane.send_all()
    assert lane.states() == ["dead", "done"]
    assert "failed since" in lane.jobs()[0].last_error


def test_an_outdated_report_that_cannot_be_made_again_is_sent(site, lane):
    report(site, 1)
    with site.database.transaction() as session:
        session.execute(update(Instance).values(removed_at=db_now()))
    lane.peer.held = (HeldReport("1.3", SR, "1.9.1", 1),)
    lane.send_all()
    assert lane.states() == ["done"]


def test_a_destination_that_stores_under_other_uids_gets_a_bounded_number(site, monkeypatch):
    lane = LaneInMemory(site, monkeypatch, absent_after_minutes=0)
    lane.peer.lists = False
    report(site, 1)

    def stored_elsewhere(study):
        return tuple(
            HeldReport("1.3", SR, f"1.9.{number}", 1) for number in range(len(lane.peer.sent))
        )

    lane.peer.our_reports = stored_elsewhere
    lane.send_all()
    assert len(lane.peer.sent) == 3
    assert lane.states() == ["dead"]


def test_a_peer_that_lists_new_reports_for_ever_ends_in_a_delivery(site, lane):
    report(site, 1)
    rounds = itertools.count(1)
    lane.peer.our_reports = lambda study: tuple(
        HeldReport("1.3", SR, f"1.9.{next(rounds)}", 1) for _ in range(4)
    )
    revision = 1
    while not lane.peer.sent:
        assert revision < 10
        lane.send_all()
        if study(site, 1).state is StudyState.QUEUED:
            revision += 1
            analyse(site, stored_report(site, 1, revision))
    assert revision == 4


@pytest.mark.parametrize(
    "odd",
    [
        HeldReport("1.3", SR, "not a UID", 1),
        HeldReport("1.3", SR, "1." + "9" * 70, 1),
        HeldReport("1.3", SR, "1.9.1", 2**31),
        HeldReport("1.3", SR, "1.9.1", -1),
        HeldReport("1.3", SR, "1.4.2.1", 1),
    ],
    ids=["text", "long", "large number", "negative number", "of another study here"],
)
def test_what_cannot_be_a_report_of_this_study_is_ignored(site, lane, odd):
    for number in (1, 2):
        report(site, number)
    lane.peer.held = (odd,)
    lane.send_all()
    assert lane.states() == ["done", "done"]


def test_a_read_study_whose_report_is_made_again_stays_read(site, lane):
    report(site, 1)
    report(site, 2)
    with site.database.transaction() as session:
        session.execute(update(Study).where(Study.id == 1).values(read_at=db_now()))
    site.store.path(files_of(site)[0]).unlink()
    lane.send_all()
    assert study(site, 1).read_at is not None


@pytest.mark.parametrize("ends", ["dead", "not analysable"])
def test_one_that_cannot_be_made_again_after_all_is_sent_as_it_is(site, lane, ends):
    report(site, 1)
    lane.peer.held = (HeldReport("1.3", SR, "1.9.1", 4),)
    lane.send_all()
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        if ends == "dead":
            job_lifecycle.dead_letter(session, claimed, "an internal fault")
        else:
            job_lifecycle.end_analysis(session, claimed, StudyEvent.REFUSED, reason="no T2")
    lane.change(run_after=db_now())
    lane.send_all()
    assert [content.decode() for content in lane.peer.sent] == ["report 1 1"]
    assert lane.states() == ["done"]


@pytest.mark.parametrize(("grade", "on_worklist"), [(NORMAL, False), (SEVERE, True)])
def test_a_read_study_is_unread_again_if_it_is_graded_otherwise_now(site, lane, grade, on_worklist):
    """As where the weights were replaced before its report was made again."""
    analysed(site, 1, {}, report=stored_report(site, 1, 1), destinations=["pacs"])
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.1"), Participant("anna"))
    lane.peer.held = (HeldReport("1.3", SR, "1.9.1", 4),)
    lane.send_all()
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        findings = findings_with({CANAL: grade})
        job_lifecycle.end_analysis(
            session,
            claimed,
            StudyEvent.ANALYSED,
            findings=findings,
            bundle=bundle(TrainedOn.CLINICAL),
        )
    with site.database.reading() as session:
        assert bool(worklist(session, site.ranking).rows) is on_worklist
