"""Unread studies leave the worklist by themselves; nothing that is still to come is cut off."""

import pytest
from sqlalchemy import select, update

from db import (
    expiry,
    job_lifecycle,
    jobs,
    operator_actions,
    quarantine,
    retention,
    reviews,
    studies,
)
from db.audit import Participant
from db.context import SiteContext
from db.ingest import ingest
from db.leases import Backoff
from db.models import AuditEvent, Job, JobKind, ReadingState, Study, StudyState
from db.read_models.worklist import StudyFilter, waiting, worklist
from db.read_models.worklist import studies as all_studies
from db.studies import StudyEvent
from lumbar.spine.provenance import TrainedOn
from tests.factories.ages import pass_days
from tests.factories.analyses import CANAL, SEVERE, analysed, end
from tests.factories.deliveries import claim_delivery, delivered
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.site_with_studies import stored_report


def with_settings(site, **settings):
    return SiteContext(site.settings.model_copy(update=settings), site.database, site.store)


def uid(number):
    return f"{ROOT}.{number}"


def reading(site, number):
    with site.database.reading() as session:
        return studies.find(session, uid(number)).reading


def listed(site):
    with site.database.reading() as session:
        rows = worklist(session, site.ranking).rows
    return sorted(int(row.study_instance_uid.rpartition(".")[2]) for row in rows)


def expired(site, **only):
    with site.database.reading() as session:
        wanted = StudyFilter(reading=ReadingState.EXPIRED, **only)
        rows = all_studies(session, site.ranking, limit=100, only=wanted).rows
    return sorted(int(row.study_instance_uid.rpartition(".")[2]) for row in rows)


def counts(site):
    with site.database.reading() as session:
        return waiting(session, site.ranking)


def mark_read(site, number, **how):
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, uid(number)), Participant("anna"), **how)


def file_of(site, number):
    with site.database.reading() as session:
        (row,) = studies.images_in_use(session, studies.find(session, uid(number)).id)
    return site.store.path(row.file)


def test_a_study_expires_so_many_days_after_its_last_result(site):
    analysed(site, 1)
    pass_days(site.database, 6.9)
    assert expiry.expire_unread(site) == 0
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    end(site, 1, StudyEvent.REFUSED, reason="no lumbar spine was found")  # the last result
    pass_days(site.database, 6.9)
    assert expiry.expire_unread(site) == 0
    assert listed(site) == [1]
    pass_days(site.database, 0.2)
    assert expiry.expire_unread(site) == 1
    assert (listed(site), expired(site), reading(site, 1)) == ([], [1], ReadingState.EXPIRED)
    assert (counts(site).unread, counts(site).expired) == (0, 1)
    with site.database.reading() as session:
        events = session.scalars(select(AuditEvent.event).where(AuditEvent.actor == "sweep")).all()
    assert events == ["study.expired_unread"]
    assert expiry.expire_unread(site) == 0


def test_a_late_instance_that_is_no_image_does_not_prolong_the_worklist(site):
    analysed(site, 1)
    pass_days(site.database, 6)
    with_other_content = make_slice(study=1, fill=99)
    ingest(site.database, site.store, arrival(with_other_content))  # quarantined
    pass_days(site.database, 1.1)
    assert expiry.expire_unread(site) == 1


@pytest.mark.parametrize("outcome", [StudyEvent.REFUSED, StudyEvent.EXHAUSTED])
def test_a_study_without_findings_expires_like_others(site, outcome):
    ingest(site.database, site.store, arrival(make_slice(study=1)))
    end(site, 1, outcome, reason="no lumbar spine was found")
    pass_days(site.database, 7.1)
    assert expiry.expire_unread(site) == 1


def test_what_is_still_to_come_keeps_a_study_on_the_list(site):
    for number in range(1, 8):
        ingest(site.database, site.store, arrival(make_slice(study=number)))
    report = {"destinations": ["pacs"]}
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, uid(2)).id)
        job_lifecycle.claim_analysis(session, lease_s=10)
        studies.complete(session, studies.find(session, uid(3)).id)
        waits = session.scalars(select(Job).where(Job.state == "pending")).one()
        waits.run_after = jobs.db_now(1000)
    for number in range(4, 8):
        analysed(site, number, report=stored_report(site, number, 1), **report)
    deliveries(site, {4: "pending", 5: "running", 6: "dead", 7: "done"})
    pass_days(site.database, 400)
    assert expiry.expire_unread(site) == 1
    assert expired(site) == [7]
    assert listed(site) == [1, 2, 3, 4, 5, 6]


def deliveries(site, states):
    with site.database.transaction() as session:
        for number, state in states.items():
            study_id = studies.find(session, uid(number)).id
            of_study = Job.study_id == study_id, Job.kind == JobKind.DELIVER
            session.execute(update(Job).where(*of_study).values(state=state))


def test_a_dead_delivery_that_an_operator_cancels_or_a_later_report_replaces_does_not_count(site):
    for number in (1, 2):
        analysed(site, number, report=stored_report(site, number, 1), destinations=["pacs"])
    deliveries(site, {1: "dead", 2: "dead"})
    with site.database.transaction() as session:
        of_first = Job.study_id == studies.find(session, uid(1)).id, Job.kind == JobKind.DELIVER
        operator_actions.cancel(
            session, session.scalars(select(Job.id).where(*of_first)).one(), Participant("op")
        )
        studies.requeue(session, studies.find(session, uid(2)).id)
    end(
        site,
        2,
        StudyEvent.ANALYSED,
        report=stored_report(site, 2, 2),
        destinations=["pacs"],
    )
    with site.database.transaction() as session:
        job = claim_delivery(session)
        delivered(session, job)
    pass_days(site.database, 7.1)
    assert expiry.expire_unread(site) == 2


def test_a_study_with_a_waiting_correction_neither_expires_nor_loses_its_copies(site):
    analysed(site, 1)
    ingest(site.database, site.store, arrival(make_slice(study=1, PatientID="RIGHT")))
    pass_days(site.database, 400)
    assert expiry.expire_unread(site) == 0
    mark_read(site, 1)
    pass_days(site.database, 400)
    assert retention.remove_images(site) == 0
    with site.database.transaction() as session:
        operator_actions.correct(session, uid(1), Participant("op"))
    assert listed(site) == [1]


def test_read_expired_and_waiting_studies_are_told_apart(site):
    for number in (1, 2, 3):
        analysed(site, number)
    mark_read(site, 1)
    pass_days(site.database, 7.1)
    expiry.expire_unread(site)
    analysed(site, 4)
    assert [reading(site, n) for n in (1, 2, 4)] == ["read", "expired", "waiting"]
    mark_read(site, 2)  # it was read elsewhere
    assert (expired(site), reading(site, 2)) == ([3], ReadingState.READ)
    mark_read(site, 3, read=False)
    assert (expired(site), listed(site)) == ([], [3, 4])
    pass_days(site.database, 6.9)  # it expires anew from when it was put back
    assert expiry.expire_unread(site) == 0
    ingest(site.database, site.store, arrival(make_slice(study=2, number=2)))
    assert reading(site, 2) is ReadingState.WAITING


def test_a_late_image_or_a_requeue_puts_an_expired_study_back(site):
    analysed(site, 1)
    analysed(site, 2)
    pass_days(site.database, 7.1)
    assert expiry.expire_unread(site) == 2
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    with site.database.transaction() as session:
        studies.requeue(session, studies.find(session, uid(2)).id)
    assert (listed(site), expired(site)) == ([1, 2], [])


def test_severe_studies_are_warned_of_before_and_stay_listed_after(site):
    analysed(site, 1, {CANAL: SEVERE})
    analysed(site, 2)
    analysed(site, 3, {CANAL: SEVERE}, trained_on=TrainedOn.SYNTHETIC)  # does not rank here
    pass_days(site.database, 5.9)
    assert counts(site).severe_expiring == 0
    pass_days(site.database, 0.2)
    assert counts(site).severe_expiring == 1
    pass_days(site.database, 1)
    expiry.expire_unread(site)
    figures = counts(site)
    assert (figures.severe_expiring, figures.expired, figures.expired_severe) == (0, 3, 1)
    assert expired(site, severe=True) == [1]
    pass_days(site.database, 400)
    assert retention.remove_images(site) == 3
    assert expired(site) == [1, 2, 3]
    mark_read(site, 1)
    assert (expired(site), counts(site).expired_severe) == ([2, 3], 0)


@pytest.mark.parametrize("obstacle", ["undelivered", "corrected"])
def test_a_severe_study_is_warned_of_for_a_day_once_nothing_is_to_come(site, obstacle):
    report = {"report": stored_report(site, 1, 1), "destinations": ["pacs"]}
    analysed(site, 1, {CANAL: SEVERE}, **(report if obstacle == "undelivered" else {}))
    if obstacle == "corrected":
        ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
        end(site, 1, StudyEvent.ANALYSED)
        with site.database.transaction() as session:
            session.execute(update(Study).values(severe=True, trained_on=TrainedOn.CLINICAL))
        ingest(site.database, site.store, arrival(make_slice(study=1, PatientID="RIGHT")))
    for days in (6.5, 0.6, 3, 100):
        pass_days(site.database, days)
        assert counts(site).severe_expiring == 0
        assert expiry.expire_unread(site) == 0
        assert counts(site).severe_expiring == 0
    if obstacle == "undelivered":
        deliveries(site, {1: "done"})
    else:
        (copy,) = quarantine.list_quarantined(site, uid(1))
        quarantine.drop(site, copy.id, Participant("op"))
    pass_days(site.database, 1.1 / 24)
    assert expiry.expire_unread(site) == 0
    assert counts(site).severe_expiring == 1
    pass_days(site.database, 22.8 / 24)
    assert expiry.expire_unread(site) == 0
    pass_days(site.database, 1.2 / 24)
    assert expiry.expire_unread(site) == 1


def test_worklist_days_0_lets_nothing_expire_and_keeps_images_until_they_are_read(site):
    site = with_settings(site, worklist_days=0)
    analysed(site, 1)
    analysed(site, 2)
    pass_days(site.database, 4000)
    assert expiry.expire_unread(site) == 0
    mark_read(site, 2)
    assert retention.remove_images(site) == 1
    assert (file_of(site, 1).exists(), file_of(site, 2).exists()) == (True, False)
    assert counts(site).severe_expiring == 0


def test_many_studies_expire_in_batches_and_a_locked_one_at_the_next_round(site, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH", 2)
    for number in range(1, 6):
        analysed(site, number)
    pass_days(site.database, 7.1)
    if site.database.engine.dialect.name == "postgresql":
        with site.database.transaction() as other:
            studies.lock(other, studies.find(other, uid(3)).id)
            assert expiry.expire_unread(site) == 4
    expiry.expire_unread(site)
    assert expired(site) == [1, 2, 3, 4, 5]


def test_a_study_of_other_objects_alone_is_on_no_list(site):
    analysed(site, 1)
    with site.database.transaction() as session:
        session.execute(update(Study).values(state=StudyState.NO_IMAGES))
    pass_days(site.database, 400)
    assert expiry.expire_unread(site) == 0
    assert counts(site).expired == 0


# What the disk may take


def full(site, monkeypatch, fill=0.99):
    monkeypatch.setattr(type(site.store), "fill_ratio", lambda store: fill)


def test_images_of_an_unread_study_are_never_removed_even_on_a_full_disk(site, monkeypatch):
    analysed(site, 1)
    pass_days(site.database, 6)
    full(site, monkeypatch)
    assert retention.remove_images(site) == 0
    with site.database.reading() as session:
        study_id = studies.find(session, uid(1)).id
    assert not retention.remove(site, study_id, "a test")
    pass_days(site.database, 1.1)
    expiry.expire_unread(site)
    assert file_of(site, 1).exists()
    assert retention.remove_images(site) == 1
    assert not file_of(site, 1).exists()


def test_images_are_kept_for_so_many_hours_after_the_result_or_the_last_instance(site, monkeypatch):
    analysed(site, 1)
    mark_read(site, 1)
    full(site, monkeypatch)
    pass_days(site.database, 0.9)
    assert retention.remove_images(site) == 0
    assert retention.remove_images(with_settings(site, keep_days=0.5)) == 0
    with site.database.reading() as session:
        study_id = studies.find(session, uid(1)).id
    assert not retention.remove(site, study_id, "it was listed before an instance arrived")
    pass_days(site.database, 0.2)
    assert retention.remove_images(site) == 1
    ingest(site.database, site.store, arrival(make_slice(study=1)))  # sent again, to be requeued
    assert retention.remove_images(site) == 0
    assert file_of(site, 1).exists()


@pytest.mark.parametrize("state", ["pending", "running", "dead"])
def test_images_of_a_study_with_an_undelivered_report_are_kept(site, monkeypatch, state):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["pacs", "archive"])
    mark_read(site, 1)
    with site.database.transaction() as session:
        sent, held = session.scalars(select(Job).where(Job.kind == JobKind.DELIVER))
        sent.state, held.state = "done", state
    pass_days(site.database, 400)
    full(site, monkeypatch)
    assert retention.remove_images(site) == 0
    assert file_of(site, 1).exists()
    deliveries(site, {1: "done"})
    assert retention.remove_images(site) == 1


def test_studies_that_are_kept_do_not_hide_those_behind_them(site, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    for number in range(1, 6):
        analysed(site, number)
        mark_read(site, number)
    for number in range(1, 5):  # corrections, which are found one by one
        ingest(site.database, site.store, arrival(make_slice(study=number, PatientID="RIGHT")))
    with site.database.transaction() as session:
        fifth = update(Study).where(Study.study_instance_uid == uid(5))
        session.execute(fifth.values(kept_from_s=Study.kept_from_s + 10))
    pass_days(site.database, 40)
    assert retention.remove_images(site) == 1
    assert not file_of(site, 5).exists()


def test_a_failed_delivery_that_is_retried_keeps_its_study(site):
    analysed(site, 1, report=stored_report(site, 1, 1), destinations=["pacs"])
    with site.database.transaction() as session:
        job = claim_delivery(session)
        job_lifecycle.release(session, job, "the PACS is unavailable", Backoff(100, 900, 900))
    pass_days(site.database, 30)
    assert expiry.expire_unread(site) == 0
