"""A report's UID stands for its bytes: other bytes never leave under the same UID."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import tag_for_keyword

from lumbar.reports.report import DRAFT_UID, Draft, Predecessor
from lumbar.reports.sr import draft_sr
from lumbar.spine.anatomy import ALL_FINDINGS
from tests.factories.reports import (
    BERLIN,
    CREATED,
    PROVENANCE,
    STUDY,
    assessed,
    one,
    point,
    read,
    source,
)

SR = "1.2.840.10008.5.1.4.1.1.88.34"
EARLIER = Predecessor("1.2.3", SR, "1.2.3.4")
OTHER_SERIES = Predecessor("1.2.5", SR, "1.2.5.6")


def draft(*headers: Dataset, **options: object) -> Draft:
    return draft_sr(headers or [source()], one(), PROVENANCE, **options)


DRAFT = draft()


def with_values(**values: object) -> Dataset:
    header = source()
    for keyword, value in values.items():
        setattr(header, keyword, value)
    return header


@pytest.mark.parametrize(
    "other",
    [
        lambda: draft(with_values(AccessionNumber="A8")),
        lambda: draft(with_values(PatientName="Doe^John")),
        lambda: draft(with_values(PatientBirthDate="19700103")),
        lambda: draft(caveats=["the numbering is uncertain"]),
        lambda: draft_sr([source()], [assessed(ALL_FINDINGS[0], point())], PROVENANCE),
    ],
    ids=["accession number", "name", "birth date", "caveat", "findings"],
)
def test_another_value_makes_another_draft_and_another_uid(other: Callable[[], Draft]) -> None:
    changed = other()

    assert changed.sha256 != DRAFT.sha256
    assert (
        changed.finish(CREATED, BERLIN).sop_instance_uid
        != DRAFT.finish(CREATED, BERLIN).sop_instance_uid
    )


moments = st.timedeltas(timedelta(0), timedelta(days=300)).map(lambda later: CREATED + later)
endings = st.tuples(
    moments, st.integers(1, 3), st.sampled_from([(), (EARLIER,), (EARLIER, OTHER_SERIES)])
)


@given(endings, endings)
def test_equal_uids_mean_equal_bytes(
    first: tuple[datetime, int, tuple[Predecessor, ...]],
    second: tuple[datetime, int, tuple[Predecessor, ...]],
) -> None:
    reports = [
        DRAFT.finish(created, number=number, predecessors=predecessors)
        for created, number, predecessors in (first, second)
    ]

    uids = {report.sop_instance_uid for report in reports}
    assert len(uids) == len({report.content for report in reports}) == len({first, second})


def test_nothing_of_the_draft_is_left() -> None:
    content = DRAFT.finish(CREATED, predecessors=[EARLIER]).content
    document = dcmread(BytesIO(content))

    assert DRAFT_UID not in [element.value for element in document.iterall()]
    assert document.file_meta.MediaStorageSOPInstanceUID == document.SOPInstanceUID
    assert b"19700101" not in content


def test_predecessors_are_referenced_by_series() -> None:
    third = Predecessor("1.2.3", SR, "1.2.3.9")

    document = read(DRAFT.finish(CREATED, number=4, predecessors=[EARLIER, OTHER_SERIES, third]))

    assert document.InstanceNumber == 4
    (study,) = document.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == STUDY
    references = {
        series.SeriesInstanceUID: [
            reference.ReferencedSOPInstanceUID for reference in series.ReferencedSOPSequence
        ]
        for series in study.ReferencedSeriesSequence
    }
    assert references == {"1.2.3": ["1.2.3.4", "1.2.3.9"], "1.2.5": ["1.2.5.6"]}


def test_times_are_in_the_offset_that_the_images_state() -> None:
    stated = draft(with_values(TimezoneOffsetFromUTC="-0330"))

    document = read(stated.finish(datetime(2026, 3, 4, 1, 0, tzinfo=UTC)))

    assert document.TimezoneOffsetFromUTC == "-0330"
    assert (document.ContentDate, document.ContentTime[:4]) == ("20260303", "2130")


@pytest.mark.parametrize(
    ("study_date", "offset", "hour"), [("20260115", "+0100", "13"), ("20260715", "+0200", "14")]
)
def test_without_one_they_are_in_the_offset_of_the_site_at_the_time_of_the_study(
    study_date: str, offset: str, hour: str
) -> None:
    created = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)

    document = read(draft(with_values(StudyDate=study_date)).finish(created, BERLIN))

    assert document.TimezoneOffsetFromUTC == offset
    assert document.ContentTime[:2] == document.InstanceCreationTime[:2] == hour


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("stated", ["", "UTC", "+1430", "-1201", "0100", ["+0100", "+0200"]])
def test_an_offset_that_is_none_does_not_count(stated: str | list[str]) -> None:
    document = read(draft(with_values(TimezoneOffsetFromUTC=stated)).finish(CREATED, BERLIN))

    assert document.TimezoneOffsetFromUTC == "+0100"


def test_without_a_zone_of_the_site_it_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        winter = draft(with_values(StudyDate="20260115"))
        summer = winter.finish(datetime(2026, 7, 1, 12, 0, tzinfo=UTC))
    finally:
        monkeypatch.undo()
        time.tzset()

    assert read(summer).TimezoneOffsetFromUTC == "+0100"
    assert read(summer).ContentTime[:2] == "13"


def test_an_offset_with_seconds_is_that_of_today() -> None:
    old = draft(with_values(StudyDate="18900101"))

    assert read(old.finish(CREATED, BERLIN)).TimezoneOffsetFromUTC == "+0100"


def test_images_that_state_different_offsets_state_none() -> None:
    second = source(2)
    first = with_values(TimezoneOffsetFromUTC="+0500")
    second.TimezoneOffsetFromUTC = "+0600"

    assert read(draft(first, second).finish(CREATED, BERLIN)).TimezoneOffsetFromUTC == "+0100"


def test_what_a_report_says_does_not_depend_on_when_it_is_drafted() -> None:
    again = draft()

    assert again.sha256 == DRAFT.sha256
    assert again.finish(CREATED, BERLIN).content == DRAFT.finish(CREATED, BERLIN).content
    later = again.finish(CREATED + timedelta(hours=1))
    assert later.sop_instance_uid != DRAFT.finish(CREATED, BERLIN).sop_instance_uid


def test_requested_procedures_are_copied_once() -> None:
    request = Dataset()
    request.AccessionNumber, request.RequestedProcedureID = "A7", "RP1"
    request.RequestedProcedureDescription = "MR lumbar spine"
    request.PlacerOrderNumberImagingServiceRequest = "PL1"
    issuer, code = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "LSP", "99X", "Lumbar spine"
    request.IssuerOfAccessionNumberSequence = [issuer]
    request.RequestedProcedureCodeSequence = [code]
    first, second = source(1), source(2)
    first.RequestAttributesSequence = second.RequestAttributesSequence = [request]
    second.IssuerOfAccessionNumberSequence = [issuer]

    document = read(draft(first, second).finish(CREATED, BERLIN))

    (procedure,) = document.ReferencedRequestSequence
    assert procedure.StudyInstanceUID == STUDY
    assert (procedure.AccessionNumber, procedure.RequestedProcedureID) == ("A7", "RP1")
    assert procedure.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"
    assert procedure.RequestedProcedureCodeSequence[0].CodeValue == "LSP"
    assert procedure.PlacerOrderNumberImagingServiceRequest == "PL1"
    assert procedure.FillerOrderNumberImagingServiceRequest == ""
    assert document.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"


def test_the_issuer_of_another_accession_number_is_not_copied() -> None:
    other, issuer = with_values(AccessionNumber="B9"), Dataset()
    issuer.LocalNamespaceEntityID = "ELSEWHERE"
    other.IssuerOfAccessionNumberSequence = [issuer]
    other.SOPInstanceUID = source(2).SOPInstanceUID

    document = read(draft(source(1), other).finish(CREATED, BERLIN))

    assert document.AccessionNumber == "A7"
    assert "IssuerOfAccessionNumberSequence" not in document


@pytest.mark.parametrize("damaged", ["text", [], [Dataset()]])
def test_damaged_requests_are_left_out_or_empty(damaged: object) -> None:
    header = source()
    vr = "SQ" if isinstance(damaged, list) else "LO"
    for keyword in ("RequestAttributesSequence", "IssuerOfAccessionNumberSequence"):
        tag = tag_for_keyword(keyword)
        header[tag] = DataElement(tag, vr, damaged)

    document = read(draft(header).finish(CREATED, BERLIN))

    assert "IssuerOfAccessionNumberSequence" not in document
    for procedure in document.get("ReferencedRequestSequence", []):
        assert procedure.RequestedProcedureID == ""
