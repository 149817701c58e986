"""Lanes: held destinations, what is sent again and when, and reports that must be made again."""

import itertools

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from db import (
    destination_actions,
    held_destinations,
    job_lifecycle,
    operator_actions,
    reports,
    studies,
)
from db.context import SiteContext
from db.models import (
    Delivery,
    HeldDestination,
    Instance,
    Job,
    JobKind,
    JobState,
    ReportRow,
    Study,
    StudyState,
)
from db.studies import StudyEvent
from db.types import db_now
from lumbar.errors import NotFound, Permanent
from lumbar.peers import HeldReport
from lumbar.peers.outcomes import Busy, NotAuthorised, ProcessingFailed, Refused, Unreachable
from tests.factories.analyses import analysed
from tests.factories.deliveries import PeerInMemory, claim_delivery
from tests.factories.instances import ROOT
from tests.integration.site_with_studies import stored_report
from worker import lanes
from worker.lanes import Lane

SR = "1.2.840.10008.5.1.4.1.1.88.34"


class Line:
    """A lane to a peer in memory."""

    def __init__(self, site, monkeypatch, **settings):
        given = {"attempts": 2, "retry_base_s": 60, "confirm": "", **settings}
        confirm = given.pop("confirm")
        url = f"dicom://PACS@127.0.0.1:104{confirm}"
        destinations = {"pacs": url, "archive": url}
        configured = site.settings.model_copy(update={"destinations": destinations, **given})
        self.site = SiteContext(configured, site.database, site.store)
        self.peer = PeerInMemory()
        monkeypatch.setattr(lanes, "Peer", lambda *_, **__: self.peer)
        self.lane = Lane(self.site, "pacs")

    def send_all(self, at_most=20):
        """Delivers what is due; returns how many jobs it took."""
        count = 0
        while count < at_most and self.lane.do_next():
            count += 1
        return count

    def fails(self, error):
        def fail():
            raise error

        self.peer.fails = fail

    def works(self):
        self.peer.fails = lambda: None

    def jobs(self):
        with self.site.database.reading() as session:
            return session.scalars(
                select(Job).where(Job.kind == JobKind.DELIVER).order_by(Job.id)
            ).all()

    def states(self):
        return [str(job.state) for job in self.jobs()]

    def outcomes(self):
        with self.site.database.reading() as session:
            return [str(row.outcome) for row in session.scalars(select(Delivery))]

    def hold(self):
        with self.site.database.reading() as session:
            return held_destinations.hold_of(session, "pacs")

    def change(self, **values):
        with self.site.database.transaction() as session:
            session.execute(update(Job).where(Job.kind == JobKind.DELIVER).values(**values))

    def later(self):
        """The next probe is due."""
        with self.site.database.transaction() as session:
            held_destinations.probe_now(session, "pacs")


@pytest.fixture
def line(site, monkeypatch):
    return Line(site, monkeypatch)


def report(site, number, revision=1):
    """A study with a report to be sent."""
    analysed(site, number, report=stored_report(site, number, revision), destinations=["pacs"])


def report_again(site, number, revision):
    with site.database.transaction() as session:
        assert studies.requeue(session, studies.find(session, f"{ROOT}.{number}").id)
    analyse(site, stored_report(site, number, revision))


def analyse(site, report):
    """A queued study is analysed, with this report."""
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        job_lifecycle.end_analysis(
            session, claimed, StudyEvent.ANALYSED, report=report, destinations=["pacs"]
        )


def test_a_night_without_the_pacs_costs_one_attempt_a_wait_and_no_report(site, line):
    for number in range(1, 6):
        report(site, number)
    line.fails(Unreachable("pacs does not answer"))
    assert line.send_all() == 1
    for _ in range(30):  # the probes of a night; each is one attempt
        line.later()
        assert line.send_all() == 1
    assert line.states() == ["pending"] * 5
    assert line.hold().failures == 31
    assert sum(job.attempts for job in line.jobs()) == 31
    assert line.hold().last_error == "pacs does not answer"
    line.works()
    line.later()
    assert line.send_all() == 5
    assert line.states() == ["done"] * 5
    assert line.hold() is None


def test_only_one_worker_at_a_time_probes(site, line):
    for number in (1, 2):
        report(site, number)
    line.fails(Busy("pacs is out of resources"))
    line.send_all()
    line.later()
    with site.database.transaction() as session:
        assert claim_delivery(session) is not None
        assert claim_delivery(session) is None
    assert not line.lane.do_next()


def test_held_reports_flow_in_the_order_of_urgency(site, line):
    for number in (1, 2, 3):
        report(site, number)
    line.fails(Unreachable("down"))
    line.send_all()
    with site.database.transaction() as session:
        session.execute(update(Job).where(Job.study_id == 3).values(priority=3))
    line.works()
    line.later()
    line.send_all()
    sent = [content.decode() for content in line.peer.sent]
    assert sent == ["report 3 1", "report 1 1", "report 2 1"]


def test_a_report_that_alone_fails_does_not_hold_the_others(site, line):
    for number in (1, 2):
        report(site, number)
    line.fails(ProcessingFailed("pacs failed to store it"))
    assert line.send_all() == 2
    assert line.hold() is None
    assert [job.attempts for job in line.jobs()] == [1, 1]
    assert line.states() == ["pending"] * 2


def test_what_is_refused_is_dead_and_shows_that_the_destination_answers(site, line):
    report(site, 1)
    report(site, 2)
    line.fails(NotAuthorised("pacs does not permit it"))
    line.send_all()
    assert line.hold() is not None
    line.fails(Refused("pacs refused it"))
    line.later()
    line.send_all()
    assert line.states() == ["dead", "dead"]


def test_failing_for_days_and_often_makes_a_job_dead_and_the_next_one_probes(site, line):
    for number in (1, 2):
        report(site, number)
    line.fails(Unreachable("down"))
    for _ in range(4):
        line.later()
        line.send_all()
    first, second = line.jobs()
    assert [first.attempts, second.attempts] == [2, 2]
    assert line.states() == ["pending", "pending"]
    with site.database.transaction() as session:
        long_ago = first.first_failed_s - 8 * 24 * 3600
        session.execute(update(Job).where(Job.id == first.id).values(first_failed_s=long_ago))
    line.later()
    line.send_all()
    assert line.states() == ["dead", "pending"]
    line.later()
    line.send_all()
    assert [job.attempts for job in line.jobs()] == [3, 3]


def test_a_wrong_clock_makes_no_job_dead(site, line):
    report(site, 1)
    line.fails(Unreachable("down"))
    for _ in range(4):
        line.change(first_failed_at=db_now(-365 * 24 * 3600))
        line.later()
        line.send_all()
    assert line.states() == ["pending"]


@pytest.mark.parametrize("probe", ["", "?probe=echo"])
def test_a_report_that_upsets_the_destination_does_not_hold_the_others(site, monkeypatch, probe):
    line = Line(site, monkeypatch, confirm=probe)
    for number in (1, 2, 3):
        report(site, number)

    def fail_for_the_first(file, **_):
        if file.read_bytes() == b"report 1 1":
            raise Busy("pacs answers with HTTP 500")
        return send(file)

    send, line.peer.send = line.peer.send, fail_for_the_first
    for _ in range(6):
        line.later()
        line.send_all()
    assert line.states() == ["pending", "done", "done"]
    assert line.hold() is None
    report(site, 4)
    assert line.send_all() == 1
    assert line.states()[-1] == "done"


def test_a_destination_that_echoes_and_takes_nothing_is_tried_less_and_less_often(
    site, monkeypatch
):
    line = Line(site, monkeypatch, confirm="?probe=echo")
    report(site, 1)

    def full(file, **_):
        raise Busy("pacs is out of resources")

    line.peer.send = full
    for _ in range(5):
        line.later()
        line.send_all()
    assert (line.hold().failures, line.peer.tested) == (5, 4)


def test_a_destination_that_refuses_the_echo_is_tried_all_the_same(site, monkeypatch):
    line = Line(site, monkeypatch, confirm="?probe=echo")
    report(site, 1)
    line.fails(Unreachable("down"))
    line.send_all()
    line.works()

    def refused():
        raise Refused("pacs does not offer verification")

    line.peer.test = refused
    line.later()
    assert line.send_all() == 1
    assert line.states() == ["done"]


def test_a_hold_ends_with_the_last_job(site, line):
    report(site, 1)
    line.fails(Unreachable("down"))
    line.send_all()
    with site.database.transaction() as session:
        assert destination_actions.cancel_all(session, "pacs", "anna") == 1
    assert line.hold() is None
    report(site, 2)
    line.send_all()
    with site.database.transaction() as session:
        operator_actions.cancel(session, line.jobs()[1].id, "anna")
    assert line.hold() is not None
    line.send_all()
    assert line.hold() is None


def test_a_probe_that_is_due_further_ahead_than_the_longest_wait_is_due(site, line):
    report(site, 1)
    line.fails(Unreachable("down"))
    line.send_all()
    with site.database.transaction() as session:
        session.execute(update(HeldDestination).values(probe_after=db_now(24 * 3600)))
    line.works()
    assert line.send_all() == 1


def test_faults_of_ours_are_counted_apart_from_what_is_temporary(site, line):
    report(site, 1)
    line.fails(Unreachable("down"))
    for _ in range(5):
        line.later()
        line.send_all()
    line.fails(RuntimeError("a fault"))
    line.later()
    line.send_all()
    (job,) = line.jobs()
    assert (job.state, job.faults, job.attempts) == (JobState.PENDING, 1, 6)


@pytest.mark.parametrize(
    ("lists", "confirm", "outcome"),
    [(True, "", "confirmed"), (None, "", "accepted"), (False, "?confirm=no", "accepted")],
)
def test_what_is_known_of_a_delivery(site, monkeypatch, lists, confirm, outcome):
    line = Line(site, monkeypatch, confirm=confirm)
    line.peer.lists = lists
    report(site, 1)
    line.send_all()
    assert line.outcomes() == [outcome]
    assert line.states() == ["done"]


def test_what_the_destination_does_not_list_is_asked_again_then_sent_again_then_shown(
    site, monkeypatch
):
    line = Line(site, monkeypatch, absent_after_minutes=10)
    line.peer.lists = False
    report(site, 1)
    line.send_all()
    (job,) = line.jobs()
    assert (job.state, job.sends) == (JobState.PENDING, 1)
    assert "does not list it" in job.last_error
    assert line.outcomes() == ["accepted"]
    for sends in (2, 3):
        line.change(run_after=db_now(), sent_at=db_now(-599))
        line.send_all()
        assert len(line.peer.sent) == sends - 1
        line.change(run_after=db_now(), sent_at=db_now(-601))
        line.send_all()
        assert len(line.peer.sent) == sends
    line.change(run_after=db_now(), sent_at=db_now(-601))
    line.send_all()
    assert line.states() == ["dead"]
    assert line.outcomes() == ["absent"]
    assert "sent 3 times" in line.jobs()[0].last_error
    assert len(set(line.peer.sent)) == 1


def test_what_is_listed_a_little_later_is_confirmed_without_sending_it_again(site, line):
    line.peer.lists = False
    report(site, 1)
    line.send_all()
    line.peer.lists = True
    line.change(run_after=db_now())
    line.send_all()
    assert (line.outcomes(), len(line.peer.sent)) == (["confirmed"], 1)


@pytest.mark.parametrize("later", ["listed", "unanswered"])
def test_a_peer_that_takes_reports_and_answers_no_question_holds_nothing_up(site, line, later):
    for number in (1, 2):
        report(site, number)

    def unreachable(_):
        raise Unreachable("it did not finish within 120 s")

    line.peer.our_reports = line.peer.holds = unreachable
    assert line.send_all() == 2
    assert (len(line.peer.sent), line.hold()) == (2, None)
    assert line.states() == ["pending", "pending"]
    if later == "listed":
        del line.peer.holds
    line.change(run_after=db_now(), sent_at=db_now(-601))
    line.send_all()
    assert line.states() == ["done", "done"]
    assert line.outcomes() == ["confirmed" if later == "listed" else "accepted"] * 2
    assert len(line.peer.sent) == 2


def test_the_lease_is_looked_at_just_before_sending(site, line, monkeypatch):
    """A worker that was stopped, and continued after another had taken over, sends nothing."""
    report(site, 1)
    reports_of = line.peer.our_reports

    def taken_over_meanwhile(study):
        line.change(lease_token="another")
        return reports_of(study)

    monkeypatch.setattr(line.peer, "our_reports", taken_over_meanwhile)
    line.lane.do_next()
    assert line.peer.sent == []


def test_a_report_that_was_replaced_meanwhile_is_cancelled_not_sent(site, line, monkeypatch):
    report(site, 1)

    def replaced_meanwhile(study):
        monkeypatch.setattr(line.peer, "our_reports", lambda study: ())
        report_again(site, 1, 2)
        return ()

    monkeypatch.setattr(line.peer, "our_reports", replaced_meanwhile)
    line.send_all()
    assert [content.decode() for content in line.peer.sent] == ["report 1 2"]
    assert line.states() == ["cancelled", "done"]


def test_of_one_study_only_one_report_is_under_way_to_a_destination(site, line):
    report(site, 1)
    with site.database.transaction() as session:
        assert claim_delivery(session).revision == 1
    report_again(site, 1, 2)
    with site.database.transaction() as session:
        assert claim_delivery(session) is None


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_report_is_not_sent_but_made_again(site, line, damage):
    report(site, 1)
    report(site, 2)  # the disk is there
    (file, _) = files_of(site)
    path = site.store.path(file)
    path.unlink() if damage == "missing" else path.write_bytes(b"repor")
    line.send_all()
    assert [content.decode() for content in line.peer.sent] == ["report 2 1"]
    assert line.states() == ["cancelled", "done"]
    assert study(site, 1).state is StudyState.QUEUED
    assert study(site, 1).revision == 2


def test_one_whose_images_are_gone_is_dead_with_the_reason(site, line):
    report(site, 1)
    report(site, 2)
    site.store.path(files_of(site)[0]).unlink()
    with site.database.transaction() as session:
        session.execute(update(Instance).values(removed_at=db_now()))
    line.send_all()
    assert line.states()[0] == "dead"
    assert "cannot be made again" in line.jobs()[0].last_error


def test_reports_wait_while_their_disk_is_away(site, line):
    report(site, 1)
    folder = site.store.path("reports")
    away = folder.rename(folder.with_name("away"))
    for _ in range(25):
        line.change(run_after=db_now())
        line.send_all()
    assert line.states() == ["pending"]
    assert "mount the disk" in line.jobs()[0].last_error
    away.rename(folder)
    line.change(run_after=db_now())
    line.send_all()
    assert line.states() == ["done"]


def test_what_only_the_destination_remembers_is_replaced_by_a_report_that_names_it(site, line):
    """As after a deletion of the study here, or where the database is an older copy."""
    report(site, 1)
    line.peer.held = (HeldReport("1.3", SR, "1.9.1", 4), HeldReport("1.3", SR, "1.4.1.1", 5))
    with capture_logs() as logged:
        line.send_all()
    assert line.peer.sent == []
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
    assert line.states() == ["cancelled"]


def test_a_report_whose_answer_was_lost_is_replaced_once_the_destination_lists_it(site, line):
    report(site, 1)

    def lost(file, **_):
        raise Unreachable("pacs did not respond in time")

    send, line.peer.send = line.peer.send, lost
    line.send_all()
    line.peer.send = send
    report_again(site, 1, 2)  # a late image
    line.peer.held = (HeldReport("1.3", SR, "1.4.1.1", 1),)
    line.later()
    line.send_all()
    assert line.peer.sent == []
    assert study(site, 1).state is StudyState.QUEUED
    with site.database.reading() as session:
        assert [row.revision for row in reports.current_reports(session, 1)] == [1]
    replacing = stored_report(site, 1, 3)
    replacing.predecessor_ids = [1]
    analyse(site, replacing)
    line.later()
    line.send_all()
    assert [content.decode() for content in line.peer.sent] == ["report 1 3"]


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


def test_a_report_of_an_ended_later_revision_without_one_is_dead_not_silent(site, line):
    report(site, 1)
    report(site, 2)
    site.store.path(files_of(site)[0]).unlink()
    with site.database.transaction() as session:
        session.execute(update(Study).where(Study.id == 1).values(revision=2, state="failed"))
    line.send_all()
    assert line.states() == ["dead", "done"]
    assert "failed since" in line.jobs()[0].last_error


def test_an_outdated_report_that_cannot_be_made_again_is_sent(site, line):
    report(site, 1)
    with site.database.transaction() as session:
        session.execute(update(Instance).values(removed_at=db_now()))
    line.peer.held = (HeldReport("1.3", SR, "1.9.1", 1),)
    line.send_all()
    assert line.states() == ["done"]


def test_a_destination_that_stores_under_other_uids_gets_a_bounded_number(site, monkeypatch):
    line = Line(site, monkeypatch, absent_after_minutes=0)
    line.peer.lists = False
    report(site, 1)

    def stored_elsewhere(study):
        return tuple(
            HeldReport("1.3", SR, f"1.9.{number}", 1) for number in range(len(line.peer.sent))
        )

    line.peer.our_reports = stored_elsewhere
    line.send_all()
    assert len(line.peer.sent) == 3
    assert line.states() == ["dead"]


def test_a_peer_that_lists_new_reports_for_ever_ends_in_a_delivery(site, line):
    report(site, 1)
    rounds = itertools.count(1)
    line.peer.our_reports = lambda study: tuple(
        HeldReport("1.3", SR, f"1.9.{next(rounds)}", 1) for _ in range(4)
    )
    revision = 1
    while not line.peer.sent:
        assert revision < 10
        line.send_all()
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
def test_what_cannot_be_a_report_of_this_study_is_ignored(site, line, odd):
    for number in (1, 2):
        report(site, number)
    line.peer.held = (odd,)
    line.send_all()
    assert line.states() == ["done", "done"]


def test_a_read_study_whose_report_is_made_again_stays_read(site, line):
    report(site, 1)
    report(site, 2)
    with site.database.transaction() as session:
        session.execute(update(Study).where(Study.id == 1).values(read_at=db_now()))
    site.store.path(files_of(site)[0]).unlink()
    line.send_all()
    assert study(site, 1).read_at is not None


def test_a_destination_is_probed_by_an_echo_where_the_settings_say_so(site, monkeypatch):
    line = Line(site, monkeypatch, confirm="?probe=echo")
    for number in (1, 2):
        report(site, number)
    line.fails(Unreachable("down"))
    line.send_all()
    for _ in range(3):
        line.later()
        assert line.send_all() == 0
    assert line.peer.tested == 3
    assert [job.attempts for job in line.jobs()] == [1, 0]
    line.works()
    line.later()
    assert line.send_all() == 2


def test_all_jobs_of_a_destination_are_retried_at_once(site, line):
    for number in (1, 2, 3):
        report(site, number)
    line.fails(Refused("refused"))
    assert line.lane.do_next()
    line.fails(Unreachable("down"))
    line.send_all()
    with site.database.transaction() as session:
        assert destination_actions.retry_all(session, "pacs", "anna") == 3
    line.works()
    assert line.send_all() == 3
    assert line.states() == ["done"] * 3
    with site.database.transaction() as session, pytest.raises(NotFound):
        destination_actions.retry_all(session, "pacs", "anna")


def test_retrying_leaves_dead_deliveries_of_replaced_reports(site, line):
    report(site, 1)
    line.fails(Refused("refused"))
    line.send_all()
    report_again(site, 1, 2)
    with site.database.transaction() as session:
        assert destination_actions.retry_all(session, "pacs", "anna") == 1
    assert line.states() == ["dead", "pending"]


def test_jobs_of_an_unknown_destination_wait_and_can_be_rerouted(site, line):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["old", "pacs"])
    analysed(site, 2, report=stored_report(site, 2, 1), destinations=["old"])
    line.send_all()
    assert line.states() == ["pending", "done", "pending"]
    with site.database.transaction() as session:
        assert destination_actions.reroute(session, "old", "pacs", "anna") == 2
    line.send_all()
    assert line.states() == ["cancelled", "done", "done"]
    with site.database.transaction() as session, pytest.raises(Permanent):
        destination_actions.reroute(session, "pacs", "pacs", "anna")


@pytest.mark.parametrize("ended", ["cancelled", "dead"])
def test_a_report_rerouted_to_where_its_job_has_ended_goes_there_by_that_job(site, line, ended):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["old", "pacs"])
    with site.database.transaction() as session:
        pacs = session.scalars(select(Job.id).where(Job.destination == "pacs")).one()
        if ended == "cancelled":
            operator_actions.cancel(session, pacs, "anna")
    if ended == "dead":
        line.fails(Refused("refused"))
        line.send_all()
        line.works()
    with site.database.transaction() as session:
        destination_actions.reroute(session, "old", "pacs", "anna")
    line.send_all()
    assert line.states() == ["cancelled", "done"]


def test_a_probe_that_never_reached_the_destination_does_not_count(site, line):
    for number in (1, 2):
        report(site, number)
    line.fails(Unreachable("down"))
    line.send_all()
    site.store.path(files_of(site)[0]).unlink()
    line.works()
    line.later()
    assert line.send_all() == 2
    assert line.states() == ["cancelled", "done"]


def files_of(site):
    with site.database.reading() as session:
        return session.scalars(select(ReportRow.file).order_by(ReportRow.id)).all()


def study(site, number):
    with site.database.reading() as session:
        return studies.find(session, f"{ROOT}.{number}")
