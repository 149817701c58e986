"""Which reports are ours, as far as a peer's answers say."""

from collections.abc import Mapping

import pytest

from lumbar.peers.asking import Level, Match, Matches, our_reports
from lumbar.peers.outcomes import HeldReport
from lumbar.reports.creator import MANUFACTURER
from lumbar.reports.sr import SERIES_DESCRIPTION

STUDY, SERIES, INSTANCE = "1.2", "1.2.3", "1.2.3.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
OURS = {
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
    "Modality": "SR",
    "Manufacturer": MANUFACTURER,
    "SeriesDescription": SERIES_DESCRIPTION,
    "SeriesNumber": "8800",
}
IMAGE = {"SOPClassUID": SR, "SOPInstanceUID": INSTANCE, "InstanceNumber": "2"}
REPORT = HeldReport(SERIES, SR, INSTANCE, 2)


class Listing:
    """A peer that lists these series and, of each, these instances; None: it cannot be asked."""

    def __init__(
        self,
        series: list[Match],
        images: list[Match] | None = None,
        *,
        complete: bool = True,
    ) -> None:
        self.found = {Level.SERIES: series, Level.IMAGE: images}
        self.complete = complete

    def __call__(self, level: Level, keys: Mapping[str, str]) -> Matches | None:
        found = self.found[level]
        if found is None:
            return None
        return Matches(
            tuple({key: match.get(key, "") for key in keys} for match in found), self.complete
        )


@pytest.mark.parametrize(
    "returned",
    [
        {},
        {"Modality": ""},
        {"SeriesDescription": "", "SeriesNumber": ""},
        {"Manufacturer": "LUMBAR-TRIAGE "[:-1], "SeriesDescription": "Report"},
        {"Manufacturer": ""},
        {"Manufacturer": "", "SeriesNumber": ""},
        {"Manufacturer": "", "SeriesDescription": SERIES_DESCRIPTION[:16]},  # cut by the peer
        {"StudyInstanceUID": ""},
    ],
)
def test_a_series_is_ours_by_its_creator(returned: dict[str, str]) -> None:
    assert our_reports(Listing([OURS | returned], [IMAGE]), STUDY) == (REPORT,)


@pytest.mark.parametrize(
    "returned",
    [
        {"Modality": "MR"},
        {"Manufacturer": "Scanner"},
        {"Manufacturer": "Scanner", "SeriesDescription": SERIES_DESCRIPTION},
        {"Manufacturer": "lumbar-triage-2"},
        {"Manufacturer": "", "SeriesDescription": "Lumbar triage by another product"},
        {"Manufacturer": "", "SeriesDescription": "Report"},
        {"Manufacturer": "", "SeriesNumber": "1"},
        {"Manufacturer": "", "SeriesDescription": "", "SeriesNumber": "1"},
        {"StudyInstanceUID": "9.9"},
    ],
)
def test_a_series_of_another_is_not(returned: dict[str, str]) -> None:
    assert our_reports(Listing([OURS | returned], [IMAGE]), STUDY) == ()


def test_an_sr_series_without_a_creator_leaves_the_question_open() -> None:
    silent = OURS | {"Manufacturer": "", "SeriesDescription": ""}

    for number in ("8800", "", "x"):
        assert our_reports(Listing([silent | {"SeriesNumber": number}], [IMAGE]), STUDY) is None


def test_the_instances_tell_the_creator_where_the_series_does_not() -> None:
    silent = OURS | {"Manufacturer": "", "SeriesDescription": ""}

    ours = Listing([silent], [IMAGE | {"Manufacturer": MANUFACTURER}])
    others = Listing([silent], [IMAGE | {"Manufacturer": "Other"}])
    assert our_reports(ours, STUDY) == (REPORT,)
    assert our_reports(others, STUDY) == ()


@pytest.mark.parametrize(
    "listing",
    [
        Listing([OURS], None),
        Listing([OURS], [IMAGE], complete=False),
        Listing([OURS], [IMAGE | {"SOPInstanceUID": ""}]),
        Listing([OURS | {"SeriesInstanceUID": ""}], [IMAGE]),
    ],
)
def test_half_an_answer_leaves_the_question_open(listing: Listing) -> None:
    assert our_reports(listing, STUDY) is None


def test_reports_come_by_number_and_once_and_without_those_of_other_series() -> None:
    images = [
        IMAGE,
        IMAGE | {"SOPInstanceUID": "9", "InstanceNumber": "1", "SOPClassUID": ""},
        IMAGE,
        IMAGE | {"SOPInstanceUID": "8", "SeriesInstanceUID": "7"},
        IMAGE | {"SOPInstanceUID": "6", "InstanceNumber": "one"},
    ]

    assert our_reports(Listing([OURS], images), STUDY) == (
        HeldReport(SERIES, SR, "6", None),
        HeldReport(SERIES, SR, "9", 1),
        REPORT,
    )


def test_a_study_without_reports_has_none() -> None:
    assert our_reports(Listing([], []), STUDY) == ()
