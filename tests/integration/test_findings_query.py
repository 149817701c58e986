"""Findings across studies by pages; all that is known of one study; figures over many."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from db import reviews, studies
from db.ingest import ingest
from db.models import FindingRow, JobKind
from db.read_models import metrics, statistics
from db.read_models.findings import FindingFilter, found
from db.read_models.study_detail import Change, study_detail
from db.read_models.worklist import Ranking
from db.studies import StudyEvent
from lumbar.errors import NotFound
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, Level, Severity
from tests.factories.analyses import CANAL, MODERATE, RECESS, SEVERE, analysed, end
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.worklists import NOW, fill


def everything(session, only, size):
    rows, after = [], None
    while True:
        page = found(session, only, limit=size, after=after)
        rows += page.rows
        if page.next_after is None:
            return rows
        after = page.next_after


@pytest.fixture
def filled(database):
    fill(database, 1, count=20)
    with database.transaction() as session:
        for n, finding in enumerate(session.scalars(select(FindingRow).order_by(FindingRow.id))):
            finding.found_at = NOW - timedelta(hours=n // 40)  # many of the same moment
    return database


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    severities=st.sets(st.sampled_from(Severity)),
    conditions=st.sets(st.sampled_from(Condition)),
    levels=st.sets(st.sampled_from(Level)),
    scanner=st.sampled_from(["", "one", "nowhere"]),
    hours=st.none() | st.integers(0, 12),
    size=st.sampled_from([1, 7, 500]),
)
def test_pages_of_any_size_hold_just_what_was_asked_for_newest_first(
    filled, severities, conditions, levels, scanner, hours, size
):
    since = None if hours is None else NOW - timedelta(hours=hours)
    with filled.reading() as session:
        got = [
            row.finding_id
            for row in everything(
                session, FindingFilter(severities, conditions, levels, scanner, since), size
            )
        ]
        wanted = [
            finding.id
            for finding in session.scalars(select(FindingRow))
            if (not severities or finding.severity in severities)
            and (not conditions or finding.condition in conditions)
            and (not levels or finding.level in levels)
            and scanner in ("", finding.study.scanner)
            and (since is None or finding.found_at >= since)
        ]
        when = dict(session.execute(select(FindingRow.id, FindingRow.found_at)).all())
    assert got == sorted(wanted, key=lambda number: (when[number], number), reverse=True)


def test_findings_of_a_study_that_is_read_again_are_not_final(site):
    analysed(site, 1)
    analysed(site, 2)
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    with site.database.reading() as session:
        rows = found(session, FindingFilter(), limit=100).rows
    assert {row.study_instance_uid for row in rows} == {f"{ROOT}.2"}


def test_a_page_behind_a_finding_that_is_not_there_is_refused(database):
    with (
        database.reading() as session,
        pytest.raises(NotFound, match="no finding has the number 7"),
    ):
        found(session, FindingFilter(), limit=1, after=7)


def test_a_study_tells_what_changed_what_was_said_and_where_its_report_went(site):
    analysed(site, 1, {CANAL: SEVERE}, destinations=())
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    analysed_again(site, {RECESS: MODERATE})
    with site.database.transaction() as session:
        study = studies.find(session, f"{ROOT}.1")
        number = reviews.finding_ids(session, study.id)[RECESS]
        reviews.add_review(session, number, Severity.SEVERE, "plainly", "anna")
        reviews.add_review(session, number, Severity.MODERATE, "on second thoughts", "ben")
    with site.database.reading() as session:
        told = study_detail(session, f"{ROOT}.1", Ranking())
    assert set(told.changes) == {
        Change(2, CANAL, Severity.SEVERE, Severity.NORMAL_MILD),
        Change(2, RECESS, Severity.NORMAL_MILD, Severity.MODERATE),
    }
    (cell,) = [cell for cell in told.cells if cell.said]
    assert (cell.finding.key, cell.said.reviewer, cell.said.agrees) == (RECESS, "ben", True)
    assert len(told.cells) == 25
    assert (told.study.revision, told.study.images) == (2, 2)


def analysed_again(site, exceptions):
    from lumbar.spine.findings import Finding
    from lumbar.spine.provenance import TrainedOn
    from tests.factories.analyses import NORMAL, POINT, bundle

    again = [
        Finding(*key.parts, probabilities=exceptions.get(key, NORMAL), point=POINT, shows=0.9)
        for key in ALL_FINDINGS
    ]
    end(site, 1, StudyEvent.ANALYSED, findings=again, bundle=bundle(TrainedOn.CLINICAL))


def test_a_superseded_finding_cannot_be_reviewed(site):
    analysed(site, 1)
    with site.database.reading() as session:
        (number,) = session.scalars(select(FindingRow.id).limit(1))
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    analysed_again(site, {})
    with (
        site.database.transaction() as session,
        pytest.raises(Exception, match="a later revision has replaced"),
    ):
        reviews.add_review(session, number, Severity.SEVERE, "", "anna")


def test_figures_count_what_waits_and_how_old_it_is(site):
    analysed(site, 1)
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, f"{ROOT}.2").id)
    ingest(site.database, site.store, arrival(make_slice(study=3)))
    with site.database.reading() as session:
        told = metrics.figures(session)
    assert {state: count for state, count in told.studies.items() if count} == {
        "receiving": 1,
        "queued": 1,
    }
    assert told.jobs == {(JobKind.ANALYSE, "pending"): 1}
    assert 0 <= told.queue_age_s[JobKind.ANALYSE] < 60
    assert told.queue_age_s[JobKind.DELIVER] == 0
    assert told.last_hour["instances_received"] == 3
    assert told.last_hour["studies_analysed"] == 1


def test_scanners_are_named_once_each(database):
    fill(database, 4)
    with database.reading() as session:
        assert statistics.scanners(session) == ["one", "two"]


def test_a_week_counts_severities_and_the_last_words(site):
    analysed(site, 1, {CANAL: SEVERE, RECESS: MODERATE})
    with site.database.transaction() as session:
        numbers = reviews.finding_ids(session, studies.find(session, f"{ROOT}.1").id)
        for key, severity in (
            (CANAL, Severity.MODERATE),
            (CANAL, Severity.SEVERE),
            (RECESS, Severity.SEVERE),
        ):
            reviews.add_review(session, numbers[key], severity, "", "anna")
    with site.database.reading() as session:
        weeks = statistics.by_week(session, now=datetime.now(UTC))
    assert weeks[-1].counts == {Severity.NORMAL_MILD: 23, Severity.MODERATE: 1, Severity.SEVERE: 1}
    assert (weeks[-1].reviewed, weeks[-1].agreed) == (2, 1)
    assert sum(week.assessed for week in weeks[:-1]) == 0


def test_weeks_are_told_of_one_bundle_alone(site):
    analysed(site, 1, {CANAL: SEVERE})
    with site.database.reading() as session:
        (bundle,) = statistics.bundles(session)
        own, other = (
            statistics.by_week(session, bundle_id=number)[-1]
            for number in (bundle.id, bundle.id + 1)
        )
    assert (own.assessed, own.studies, other.assessed) == (25, 1, 0)
