"""The worklist's order and the queries for findings, over rows that a worker wrote."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from db import job_lifecycle, studies
from db.ingest import ingest
from db.models import Explanation, FindingRow, JobState, ReportRow
from db.read_models import findings, study_queries
from db.read_models.findings import FindingFilter
from db.read_models.worklist import worklist
from db.read_models.worklist_rows import Ranking
from db.studies import StudyEvent
from lumbar.errors import NotAnalysable, Permanent
from lumbar.spine.anatomy import ALL_FINDINGS, Level, Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import TrainedOn
from lumbar.spine.urgency import Urgency
from tests.factories.analyses import (
    CANAL,
    MODERATE,
    NORMAL,
    POINT,
    RECESS,
    SEVERE,
    UNSURE,
    analysed,
    bundle,
    end,
)
from tests.factories.instances import ROOT, arrival, make_slice
from tests.faults.stub_reading import by_headers
from tests.stub_networks import StubNetworks
from worker import analysis


def order(site, now=None, **options):
    with site.database.reading() as session:
        rows = worklist(session, Ranking(**options), now=now).rows
    return [(int(row.study_instance_uid.split(".")[-1]), row.urgency, row.why) for row in rows]


def test_severe_ranks_above_moderate_and_uncertain_and_normal_ranks_last(site):
    analysed(site, 1)
    analysed(site, 2, {RECESS: MODERATE})
    analysed(site, 3, {CANAL: SEVERE, RECESS: MODERATE})
    analysed(site, 4, {RECESS: UNSURE})
    analysed(site, 5, unassessed=[RECESS])
    assert order(site) == [
        (3, Urgency.URGENT, "severe L4/L5 spinal canal stenosis, 1 moderate"),
        (2, Urgency.PRIORITY, "1 moderate"),
        (4, Urgency.PRIORITY, "1 uncertain"),
        (5, Urgency.PRIORITY, "1 not assessed"),
        (1, Urgency.ROUTINE, "all normal or mild"),
    ]


def test_a_crop_that_hardly_shows_its_condition_makes_its_severity_uncertain(site):
    analysed(site, 1)
    analysed(site, 2, poorly_shown=[CANAL, RECESS])
    assert order(site) == [
        (2, Urgency.PRIORITY, "2 uncertain"),
        (1, Urgency.ROUTINE, "all normal or mild"),
    ]


def test_a_study_with_uncertain_numbering_has_priority(site):
    analysed(site, 1)
    analysed(
        site, 2, caveats=["the numbering is uncertain: the border to the sacrum looks transitional"]
    )
    assert order(site) == [
        (2, Urgency.PRIORITY, "numbering uncertain"),
        (1, Urgency.ROUTINE, "all normal or mild"),
    ]


def test_a_study_whose_images_may_be_the_wrong_ones_has_priority(site):
    analysed(site, 1)
    analysed(site, 2, caveats=["series 3 has several images at the same place"])
    assert order(site) == [
        (2, Urgency.PRIORITY, "images uncertain"),
        (1, Urgency.ROUTINE, "all normal or mild"),
    ]


def test_how_a_study_was_read_is_stored_for_each_revision_caveats_first(site):
    analysed(site, 1, caveats=["a caveat"], notes=["series 1: Sagittal T1", "series 2: refused"])
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    end(
        site, 1, StudyEvent.REFUSED, reason="no lumbar spine was found", notes=["series 1: refused"]
    )
    with site.database.reading() as session:
        lines = session.scalars(
            select(Explanation).order_by(Explanation.revision, Explanation.ordinal)
        ).all()
    assert [(line.revision, line.text, line.caveat) for line in lines] == [
        (1, "a caveat", True),
        (1, "series 1: Sagittal T1", False),
        (1, "series 2: refused", False),
        (2, "series 1: refused", False),
    ]


def test_only_how_the_newest_revision_was_read_is_shown(site):
    analysed(
        site,
        1,
        caveats=["a caveat", "and again"],
        notes=["series 1: Sagittal T1", "series 2: refused"],
    )
    analysed(site, 2, caveats=["another's"])
    assert notes_of(site, 1) == (
        ("a caveat", "and again"),
        ("series 1: Sagittal T1", "series 2: refused"),
    )
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    assert notes_of(site, 1) == ((), ())
    end(
        site, 1, StudyEvent.REFUSED, reason="no lumbar spine was found", notes=["series 1: refused"]
    )
    assert notes_of(site, 1) == ((), ("series 1: refused",))


def notes_of(site, number):
    with site.database.reading() as session:
        read = study_queries.how_read(session, studies.find(session, f"{ROOT}.{number}").id)
    return read.caveats, read.choices


def test_every_finding_has_the_caveats_of_its_revision(site):
    analysed(site, 1, caveats=["a caveat"])
    ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))
    end(
        site,
        1,
        StudyEvent.REFUSED,
        reason="no lumbar spine was found",
        caveats=["not seen", "nor named"],
    )
    analysed(site, 2, caveats=["a caveat"], notes=["series 1: Sagittal T1"])
    analysed(site, 3, notes=["series 1: Sagittal T1"])
    carried = {(row.study.study_instance_uid[-1], row.caveats) for row in everything(site)}
    assert carried == {("1", ("not seen", "nor named")), ("2", ("a caveat",)), ("3", ())}


def refuse(*_):
    raise NotAnalysable("no lumbar spine was found", ("series 1: refused",))


@pytest.mark.parametrize(
    ("reading", "of_series"), [(by_headers, ()), (refuse, ("series 1: refused",))]
)
def test_excluded_images_are_counted_by_reason_whether_the_study_is_read_or_refused(
    site, monkeypatch, reading, of_series
):
    monkeypatch.setattr(analysis, "analyse", reading)
    for number, missing in enumerate(
        ("", "PixelSpacing", "PixelSpacing", "ImagePositionPatient"), 1
    ):
        ds = make_slice(number=number, PixelSpacing=[10, 10])
        if missing:
            delattr(ds, missing)
        ingest(site.database, site.store, arrival(ds))
    analyse(site)
    assert notes_of(site, 1)[1] == (
        *of_series,
        "1 image left out: ImagePositionPatient is missing",
        "2 images left out: PixelSpacing is missing",
    )


def test_a_study_without_a_readable_image_shows_each_reason(site):
    for number, missing in enumerate(("PixelSpacing", "ImagePositionPatient"), 1):
        ds = make_slice(number=number)
        delattr(ds, missing)
        ingest(site.database, site.store, arrival(ds))
    analyse(site)
    assert notes_of(site, 1)[1] == (
        "1 image left out: ImagePositionPatient is missing",
        "1 image left out: PixelSpacing is missing",
    )


def analyse(site):
    """The study's ANALYSE job as a worker does it, with stub networks."""
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, f"{ROOT}.1").id)
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
    analysis.analyse_study(site, StubNetworks(), claimed)


def test_a_study_that_could_not_be_read_ranks_above_a_normal_one(site):
    analysed(site, 1)
    ingest(site.database, site.store, arrival(make_slice(study=2)))
    end(site, 2, StudyEvent.REFUSED, reason="no lumbar spine was found")
    ingest(site.database, site.store, arrival(make_slice(study=3)))
    assert order(site) == [
        (2, Urgency.PRIORITY, "not analysable: no lumbar spine was found"),
        (3, Urgency.PRIORITY, "not read yet: receiving"),
        (1, Urgency.ROUTINE, "all normal or mild"),
    ]


@pytest.mark.parametrize(
    ("trained_on", "rank_by_synthetic", "ranked"),
    [
        (TrainedOn.CLINICAL, False, True),
        (TrainedOn.SYNTHETIC, False, False),
        (TrainedOn.SYNTHETIC, True, True),
        (TrainedOn.NOTHING, True, False),
    ],
)
def test_only_permitted_weights_rank_a_study(site, trained_on, rank_by_synthetic, ranked):
    analysed(site, 1, trained_on=trained_on)
    ((_, tier, reason),) = order(site, rank_by_synthetic=rank_by_synthetic)
    assert (tier, reason.startswith("not ranked")) == (
        (Urgency.ROUTINE, False) if ranked else (Urgency.PRIORITY, True)
    )


def test_a_severe_study_stays_first_but_not_final_while_a_late_image_has_it_analysed_again(site):
    analysed(site, 1, {CANAL: SEVERE})
    analysed(site, 2)
    for number in (1, 2):
        ingest(site.database, site.store, arrival(make_slice(study=number, number=2)))
    assert order(site) == [
        (1, Urgency.URGENT, "severe L4/L5 spinal canal stenosis; being analysed again"),
        (2, Urgency.PRIORITY, "all normal or mild; being analysed again"),
    ]
    assert everything(site) == []
    with site.database.reading() as session:
        assert study_queries.findings(session, studies.find(session, f"{ROOT}.1")) == []


def test_waiting_raises_a_normal_study(site):
    analysed(site, 1)
    ((_, tier, reason),) = order(site, now=datetime.now(UTC) + timedelta(hours=5))
    assert (tier, reason) == (Urgency.PRIORITY, "waiting for 5 h; all normal or mild")


def test_findings_are_returned_as_written_in_the_order_of_the_rsna_rows(site):
    analysed(site, 1, {CANAL: SEVERE}, unassessed=[RECESS])
    rows = of_study(site, 1)
    assert [row.finding.key for row in rows] == list(ALL_FINDINGS)
    assert rows == everything(site)
    by_key = {row.finding.key: row for row in rows}
    assert by_key[CANAL].finding == Finding(
        *CANAL.parts, probabilities=SEVERE, point=POINT, shows=0.5
    )
    assert by_key[RECESS].finding == Finding(*RECESS.parts, reason="no axial T2")
    assert by_key[CANAL].bundle == bundle(TrainedOn.CLINICAL)


def test_a_study_without_findings_still_has_25_rows_with_its_reason(site):
    ingest(site.database, site.store, arrival(make_slice()))
    end(site, 1, StudyEvent.REFUSED, reason="no lumbar spine was found")
    rows = of_study(site, 1)
    assert [row.finding.key for row in rows] == list(ALL_FINDINGS)
    assert rows == everything(site)
    assert {row.finding.reason for row in rows} == {"not analysable: no lumbar spine was found"}


def test_findings_are_narrowed_by_every_filter(site):
    analysed(site, 1, {CANAL: SEVERE, RECESS: SEVERE})
    analysed(site, 2, {CANAL: MODERATE})

    def matching(**filters):
        return {
            (row.study.study_instance_uid[-1], row.finding.key)
            for row in everything(site, **filters)
        }

    assert matching(severities=[Severity.SEVERE]) == {("1", CANAL), ("1", RECESS)}
    assert matching(severities=[Severity.SEVERE], levels=[Level.L4_L5]) == {("1", CANAL)}
    assert matching(conditions=[CANAL.condition], levels=[CANAL.level]) == {
        ("1", CANAL),
        ("2", CANAL),
    }
    assert len(of_study(site, 2)) == 25
    soon, before = (datetime.now(UTC) + timedelta(minutes=n) for n in (1, -5))
    assert matching(since=soon) == matching(until=before) == set()
    assert len(matching(since=before)) == len(matching(until=soon)) == 50


def everything(site, **filters):
    """All findings in force, as a stream returns them."""
    return list(findings.stream(site.database, FindingFilter(**filters)))


def of_study(site, number):
    with site.database.reading() as session:
        return study_queries.findings(session, studies.find(session, f"{ROOT}.{number}"))


def test_a_requeued_studys_earlier_findings_are_superseded_and_kept(site):
    analysed(site, 1, {CANAL: SEVERE})
    with site.database.transaction() as session:
        study = studies.find(session, f"{ROOT}.1")
        assert studies.requeue(session, study.id)
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
        findings = [
            Finding(*key.parts, probabilities=NORMAL, point=POINT, shows=0.5)
            for key in ALL_FINDINGS
        ]
        job_lifecycle.end_analysis(
            session,
            claimed,
            StudyEvent.ANALYSED,
            findings=findings,
            bundle=bundle(TrainedOn.CLINICAL),
        )
    assert {row.finding.severity for row in everything(site)} == {Severity.NORMAL_MILD}
    with site.database.reading() as session:
        assert session.query(FindingRow).count() == 50


def test_a_report_still_waiting_when_its_successor_is_made_is_not_sent(site):
    def report(number):
        uids = {
            "sop_class_uid": "1.2",
            "sop_instance_uid": f"1.2.{number}",
            "series_instance_uid": "1.3",
        }
        return ReportRow(
            study_id=1, revision=number, sha256="ab" * 32, file="reports/ab.dcm", **uids
        )

    ingest(site.database, site.store, arrival(make_slice()))
    end(site, 1, StudyEvent.ANALYSED, report=report(1), destinations=["pacs"])
    ingest(site.database, site.store, arrival(make_slice(number=2)))
    end(site, 1, StudyEvent.ANALYSED, report=report(2), destinations=["pacs"])
    with site.database.reading() as session:
        rows = study_queries.deliveries(session, studies.find(session, f"{ROOT}.1").id)
    assert [(row.sop_instance_uid, row.state) for row in rows] == [
        ("1.2.1", JobState.CANCELLED),
        ("1.2.2", JobState.PENDING),
    ]


def test_quarantined_images_are_counted_by_their_reason(site):
    ingest(site.database, site.store, arrival(make_slice()))
    for columns in (4, 6):
        changed = make_slice(PixelData=bytes(8 * columns * 2), Columns=columns)
        ingest(site.database, site.store, arrival(changed))
    ingest(site.database, site.store, arrival(make_slice(number=2, PatientID="P2")))
    with site.database.reading() as session:
        assert study_queries.quarantined(session, studies.find(session, f"{ROOT}.1").id) == {
            "other content under the same SOP Instance UID": 2,
            "the study was first received for another patient": 1,
        }


def test_a_study_that_was_never_received_is_reported(site):
    with (
        site.database.reading() as session,
        pytest.raises(Permanent, match=r"no study with UID '1\.2\.3'"),
    ):
        studies.find(session, "1.2.3")
