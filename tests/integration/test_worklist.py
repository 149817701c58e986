"""The worklist in pages of any size, which studies leave it, and the search for studies."""

from datetime import UTC, datetime, timedelta

import pytest

from db import reviews, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import AuditEvent, Study, StudyState
from db.read_models import study_search
from db.read_models.worklist import StudyFilter, worklist
from db.read_models.worklist import studies as all_studies
from db.read_models.worklist_rows import Ranking
from db.studies import StudyEvent
from lumbar.errors import NotFound, Permanent
from lumbar.spine.provenance import TrainedOn
from lumbar.spine.urgency import Urgency
from tests.factories.analyses import CANAL, SEVERE, analysed, end
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.worklists import NOW, fill


def paged(session, query, size):
    rows, after = [], None
    while True:
        page = query(limit=size, after=after)
        assert len(page.rows) == size or page.next_after is None
        rows += page.rows
        if page.next_after is None:
            return rows
        after = page.next_after


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("synthetic", [False, True])
def test_pages_of_any_size_make_up_the_list_and_the_list_is_in_order(database, seed, synthetic):
    fill(database, seed)
    ranking = Ranking(rank_by_synthetic=synthetic)
    with database.reading() as session:
        rows = worklist(session, ranking, now=NOW).rows
        for size in (1, 7, 100):
            assert paged(
                session, lambda **page: worklist(session, ranking, now=NOW, **page), size
            ) == list(rows)
        unread = session.query(Study).filter(Study.read_at.is_(None)).all()
    assert {row.study_instance_uid for row in rows} == {s.study_instance_uid for s in unread}
    may = {TrainedOn.CLINICAL, TrainedOn.SYNTHETIC} if synthetic else {TrainedOn.CLINICAL}

    def place(row):
        severe = bool(row.severe) and row.bundle.trained_on in may
        return row.urgency, not row.stat, not (severe or row.stat), -row.waiting_s

    assert [place(row) for row in rows] == sorted(map(place, rows))
    assert all(
        row.urgency is Urgency.URGENT for row in rows if row.waiting_s >= 8 * 3600 or row.stat
    )


def test_all_studies_are_listed_newest_first_read_or_not(database):
    fill(database, 1)
    with database.reading() as session:
        rows = paged(session, lambda **page: all_studies(session, Ranking(), now=NOW, **page), 7)
    assert len(rows) == 60
    assert [row.last_received_at for row in rows] == sorted(
        (row.last_received_at for row in rows), reverse=True
    )


def test_filters_narrow_the_list_and_do_not_reorder_it(database):
    fill(database, 2)
    with database.reading() as session:
        rows = worklist(session, Ranking(), now=NOW).rows
        only = StudyFilter(
            states=[StudyState.FAILED], scanner="one", since=NOW - timedelta(hours=10)
        )
        filtered = worklist(session, Ranking(), only=only, now=NOW).rows
    assert filtered == tuple(
        row
        for row in rows
        if row.state is StudyState.FAILED and row.scanner == "one" and row.waiting_s <= 36000
    )
    assert filtered


def test_a_severe_study_ranks_above_one_that_has_waited_all_night(site):
    analysed(site, 1)
    analysed(site, 2, {CANAL: SEVERE})
    with site.database.transaction() as session:
        studies.find(session, f"{ROOT}.1").last_received_at = datetime.now(UTC) - timedelta(
            hours=12
        )
    with site.database.reading() as session:
        rows = worklist(session, Ranking()).rows
    assert [row.study_instance_uid for row in rows] == [f"{ROOT}.2", f"{ROOT}.1"]
    assert [row.urgency for row in rows] == [Urgency.URGENT, Urgency.URGENT]


def test_a_read_study_leaves_the_list_and_a_late_image_puts_it_back(site):
    analysed(site, 1, {CANAL: SEVERE})
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.1"), Participant("anna"))
    assert listed(site) == []
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    assert listed(site) == [
        (f"{ROOT}.1", True)
    ]  # the earlier revision's severe finding still ranks it
    end(site, 1, StudyEvent.REFUSED, reason="no lumbar spine was found")
    assert listed(site) == [(f"{ROOT}.1", False)]
    with site.database.reading() as session:
        (event,) = session.query(AuditEvent).filter(AuditEvent.event == "study.read")
    assert (event.actor, event.study_id is None) == ("anna", False)


def listed(site):
    with site.database.reading() as session:
        return [
            (row.study_instance_uid, bool(row.severe)) for row in worklist(session, Ranking()).rows
        ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("muller", [1]),
        ("MÜL", [1]),
        ("anna mul", [1]),
        ("anna", [1, 2]),
        ("nna", []),
        ("acc-1", [1]),
        ("ab 123", [2]),
        ("123", [2]),
        ("P2", [2]),
        (f"{ROOT}.2", [2]),
        (f"{ROOT}", []),
        ("%", []),
        ("_uller", []),
        ("  ", []),
    ],
)
def test_a_study_is_found_by_the_beginnings_of_its_words(site, text, found):
    for number, name in ((1, "Müller^Anna"), (2, "O'Neill^Anna^Maria")):
        ds = make_slice(
            study=number,
            PatientName=name,
            AccessionNumber=f"ACC-{number}" if number == 1 else "AB 123",
        )
        ds.SpecificCharacterSet = "ISO_IR 192"
        ingest(site.database, site.store, arrival(ds))
    with site.database.reading() as session:
        ids = sorted(study_search.matching(session, text))
    assert ids == found


@pytest.mark.parametrize(
    "after", ["1.2.3", "1.2.840.113619", "a-b-c-d", "1-0--5-2", "9" * 60, "0-0-1-9999999999"]
)
def test_a_page_with_an_unknown_cursor_is_refused_with_a_message(database, after):
    for query in (worklist, lambda *arguments, **more: all_studies(*arguments, **more, limit=1)):
        with database.reading() as session, pytest.raises(NotFound, match="no page ended with"):
            query(session, Ranking(), after=after)


@pytest.mark.parametrize("move", ["late image", "read", "stat"])
def test_a_study_that_moves_between_two_pages_hides_no_other(database, move):
    fill(database, 5)
    with database.reading() as session:
        rows = worklist(session, Ranking(), now=NOW).rows
        for size in (5, len(rows) - 3):
            first = worklist(session, Ranking(), limit=size, now=NOW)
            expected = {row.study_instance_uid for row in rows[size:]}
            moved = (
                session.query(Study)
                .filter(Study.study_instance_uid == first.rows[-1].study_instance_uid)
                .one()
            )
            before = moved.last_received_at, moved.read_at, moved.stat
            if move == "late image":
                moved.last_received_at = NOW
            elif move == "read":
                moved.read_at = NOW
            else:
                moved.stat = True
            session.flush()
            rest = worklist(session, Ranking(), after=first.next_after, now=NOW).rows
            assert {row.study_instance_uid for row in rest} >= expected
            moved.last_received_at, moved.read_at, moved.stat = before
            session.flush()
        session.rollback()


def test_a_study_is_not_marked_as_read_with_images_that_its_reader_has_not_seen(site):
    analysed(site, 1)
    with site.database.reading() as session:
        last_received_at = studies.find(session, f"{ROOT}.1").last_received_at
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    with (
        site.database.transaction() as session,
        pytest.raises(Permanent, match="new images have arrived"),
    ):
        reviews.mark_read(
            session,
            studies.find(session, f"{ROOT}.1"),
            Participant("anna"),
            last_received_at=last_received_at,
        )
    assert listed(site) == [(f"{ROOT}.1", False)]
    with site.database.transaction() as session:
        study = studies.find(session, f"{ROOT}.1")
        reviews.mark_read(
            session, study, Participant("anna"), last_received_at=study.last_received_at
        )
    assert listed(site) == []
