"""Findings across studies by pages; all that is known of one study; figures over many."""

from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from db import reviews, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import FindingRow, JobKind, Study, StudyState
from db.read_models import findings, metrics, statistics
from db.read_models.findings import FindingFilter
from db.read_models.study_detail import Change, study_detail
from db.read_models.worklist_rows import Ranking
from db.studies import StudyEvent
from lumbar.errors import NotFound
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Severity
from tests.factories.analyses import CANAL, MODERATE, RECESS, SEVERE, analysed, end
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.worklists import NOW, fill


def paged(session, only, size):
    rows, after = [], None
    while True:
        page = findings.page(session, only, limit=size, after=after)
        assert len(page.rows) == size or page.next_after is None
        rows += page.rows
        after = page.next_after
        if after is None:
            return rows


@pytest.fixture
def filled(database):
    fill(database, 1, count=20)
    with database.transaction() as session:
        for finding in session.scalars(select(FindingRow)):  # many of the same moment
            minutes = finding.id % 3
            finding.found_at = finding.study.last_received_at + timedelta(minutes=minutes)
    return database


def expected(session, only):
    """The rows expected in the list, ordered by moment, kind (finding or study), id and ordinal."""
    places = [
        (
            (row.found_at, 1, row.id, 0),
            row.study,
            FindingKey(row.condition, row.level),
            row.severity,
        )
        for row in session.scalars(select(FindingRow))
    ]
    places += [
        ((study.last_received_at, 0, study.id, ordinal), study, key, None)
        for study in session.scalars(select(Study).where(Study.state == StudyState.FAILED))
        for ordinal, key in enumerate(ALL_FINDINGS)
    ]
    matching = [
        (place, study.study_instance_uid, key)
        for place, study, key, severity in places
        if (not only.severities or severity in only.severities)
        and (not only.conditions or key.condition in only.conditions)
        and (not only.levels or key.level in only.levels)
        and only.scanner in ("", study.scanner)
        and (only.since is None or study.last_received_at >= only.since)
        and (only.until is None or study.last_received_at < only.until)
    ]
    return [(study, key) for _, study, key in sorted(matching, reverse=True)]


def moments(hours):
    return st.none() | hours.map(lambda ago: NOW - timedelta(hours=ago))


FILTERS = st.builds(
    FindingFilter,
    severities=st.sets(st.sampled_from(Severity)),
    conditions=st.sets(st.sampled_from(Condition)),
    levels=st.sets(st.sampled_from(Level)),
    scanner=st.sampled_from(["", "one", "nowhere"]),
    since=moments(st.integers(0, 12)),
    until=moments(st.integers(0, 12)),
)


@pytest.mark.slow
@pytest.mark.no_cover
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(only=FILTERS, size=st.sampled_from([1, 7, 500]))
@example(only=FindingFilter(), size=7)
@example(only=FindingFilter(until=NOW - timedelta(hours=5)), size=1000)
def test_pages_of_any_size_contain_exactly_the_matching_rows_newest_first(filled, only, size):
    with filled.reading() as session:
        rows = paged(session, only, size)
        assert [(row.study.study_instance_uid, row.finding.key) for row in rows] == expected(
            session, only
        )
        assert all(row.finding.assessed == (row.finding_id is not None) for row in rows)


def test_a_stream_has_the_rows_of_the_pages_and_per_study_the_order_of_the_rsna_rows(
    filled, monkeypatch
):
    monkeypatch.setattr(findings, "STREAMED_ROWS", 30)
    only = FindingFilter(levels=[Level.L4_L5, Level.L5_S1])
    streamed = list(findings.stream(filled, only))
    with filled.reading() as session:
        rows = paged(session, only, 500)
    assert sorted(map(repr, streamed)) == sorted(map(repr, rows))
    runs = [[row.finding.key for row in run] for _, run in groupby(streamed, lambda r: r.study)]
    assert all(run == sorted(run) for run in runs)
    assert max(map(len, runs)) == 10


def test_a_stream_holds_no_more_than_a_page_in_memory(filled, monkeypatch):
    monkeypatch.setattr(findings, "STREAMED_ROWS", 30)
    read = []
    page = findings.page
    monkeypatch.setattr(
        findings,
        "page",
        lambda *arguments, **options: read.append(1) or page(*arguments, **options),
    )
    rows = findings.stream(filled, FindingFilter())
    for _ in range(10):
        next(rows)
    assert len(read) <= 2
    assert len(list(rows)) + 10 > 200


def test_a_finding_carries_its_last_review(site):
    analysed(site, 1, {CANAL: SEVERE})
    with site.database.transaction() as session:
        number = reviews.finding_ids(session, studies.find(session, f"{ROOT}.1").id)[CANAL]
        reviews.add_review(session, number, Severity.MODERATE, "plainly", Participant("anna"))
        reviews.add_review(
            session, number, Severity.SEVERE, "on second thoughts", Participant("ben")
        )
    with site.database.reading() as session:
        rows = findings.page(session, FindingFilter(), limit=100).rows
    (row,) = [row for row in rows if row.review]
    assert (row.finding.key, row.finding_id) == (CANAL, number)
    assert (row.review.severity, row.review.agrees) == (Severity.SEVERE, True)
    assert (row.review.reviewer, row.review.comment) == ("ben", "on second thoughts")


def test_a_cursor_may_be_the_bare_id_of_a_finding_as_in_older_links(filled):
    with filled.reading() as session:
        rows = [row for row in paged(session, FindingFilter(), 500) if row.finding_id]
        third = findings.page(
            session, FindingFilter(list(Severity)), limit=1, after=str(rows[1].finding_id)
        )
    assert third.rows == (rows[2],)


def test_findings_of_a_study_that_is_being_analysed_again_are_not_final(site):
    analysed(site, 1)
    analysed(site, 2)
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    with site.database.reading() as session:
        rows = findings.page(session, FindingFilter(), limit=100).rows
    assert {row.study.study_instance_uid for row in rows} == {f"{ROOT}.2"}


@pytest.mark.parametrize("after", ["7", "9999999999", "1.2.3", "5-2-3-4", "1-0-9999999999-3", "-"])
def test_a_page_with_an_unknown_cursor_is_refused(database, after):
    with (
        database.reading() as session,
        pytest.raises(NotFound, match="no page of findings ended with"),
    ):
        findings.page(session, FindingFilter(), limit=1, after=after)


def test_a_study_shows_its_changes_its_reviews_and_the_deliveries_of_its_report(site):
    analysed(site, 1, {CANAL: SEVERE}, destinations=())
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    analysed_again(site, {RECESS: MODERATE})
    with site.database.transaction() as session:
        study = studies.find(session, f"{ROOT}.1")
        number = reviews.finding_ids(session, study.id)[RECESS]
        reviews.add_review(session, number, Severity.SEVERE, "plainly", Participant("anna"))
        reviews.add_review(
            session, number, Severity.MODERATE, "on second thoughts", Participant("ben")
        )
    with site.database.reading() as session:
        detail = study_detail(session, f"{ROOT}.1", Ranking())
    assert set(detail.changes) == {
        Change(2, CANAL, Severity.SEVERE, Severity.NORMAL_MILD),
        Change(2, RECESS, Severity.NORMAL_MILD, Severity.MODERATE),
    }
    (row,) = [row for row in detail.findings if row.review]
    assert (row.finding.key, row.review.reviewer, row.review.agrees) == (RECESS, "ben", True)
    assert len(detail.findings) == 25
    assert (detail.study.revision, detail.study.images) == (2, 2)


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
        reviews.add_review(session, number, Severity.SEVERE, "", Participant("anna"))


def test_figures_count_the_jobs_in_flight_and_the_age_of_the_queue(site):
    analysed(site, 1)
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, f"{ROOT}.2").id)
    ingest(site.database, site.store, arrival(make_slice(study=3)))
    with site.database.reading() as session:
        figures = metrics.figures(session, ())
    assert {state: count for state, count in figures.studies.items() if count} == {
        "receiving": 1,
        "queued": 1,
    }
    assert figures.jobs == {(JobKind.ANALYSE, "pending"): 1}
    assert 0 <= figures.queue_age_s[JobKind.ANALYSE] < 60
    assert figures.queue_age_s[JobKind.DELIVER] == 0
    assert figures.last_hour["instances_received"] == 3
    assert figures.last_hour["studies_analysed"] == 1


def test_each_scanner_is_named_once(database):
    fill(database, 4)
    with database.reading() as session:
        assert statistics.scanners(session) == ["one", "two"]


def test_a_week_counts_severities_and_the_last_reviews(site):
    analysed(site, 1, {CANAL: SEVERE, RECESS: MODERATE})
    with site.database.transaction() as session:
        numbers = reviews.finding_ids(session, studies.find(session, f"{ROOT}.1").id)
        for key, severity in (
            (CANAL, Severity.MODERATE),
            (CANAL, Severity.SEVERE),
            (RECESS, Severity.SEVERE),
        ):
            reviews.add_review(session, numbers[key], severity, "", Participant("anna"))
    with site.database.reading() as session:
        weeks = statistics.by_week(session, now=datetime.now(UTC))
    assert weeks[-1].counts == {Severity.NORMAL_MILD: 23, Severity.MODERATE: 1, Severity.SEVERE: 1}
    assert (weeks[-1].reviewed, weeks[-1].agreed) == (2, 1)
    assert sum(week.assessed for week in weeks[:-1]) == 0


def test_weekly_figures_cover_one_bundle_only(site):
    analysed(site, 1, {CANAL: SEVERE})
    with site.database.reading() as session:
        (bundle,) = statistics.bundles(session)
        known, unknown = (
            statistics.by_week(session, bundle_id=number)[-1]
            for number in (bundle.id, bundle.id + 1)
        )
    assert (known.assessed, known.studies, unknown.assessed) == (25, 1, 0)
