"""What a peer says that it holds, asked by C-FIND or QIDO-RS with the same meaning.

A peer need not support a key, may ignore it and list more, or fewer than all, and need not return
every attribute. What follows from its answer is decided here, on the safe side: ``None`` wherever
it does not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lumbar.peers.outcomes import HeldReport, InstanceReference
from lumbar.reports.creator import MANUFACTURER, SERIES_NAME, SERIES_NUMBER

_NO_STUDY = "2.25.1"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

Match = Mapping[str, str]  # values by keyword; empty where the peer returns none


class Level(StrEnum):
    """Query/Retrieve Level."""

    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True)
class Matches:
    """``complete``: the peer finished, and every match could be read."""

    found: tuple[Match, ...]
    complete: bool = True


class Search(Protocol):
    """Searches at a level. Keys with a value restrict the search; every key is to be returned.

    None: the peer does not offer the search, does not permit it, ends the connection instead, fails
    to do it, or answers with something else.

    Raises:
        Unreachable: no connection, or no answer in time.
        Busy: the peer is out of resources.
    """

    def __call__(self, level: Level, keys: Mapping[str, str]) -> Matches | None: ...


def holds(search: Search, reference: InstanceReference) -> bool | None:
    """Whether the peer lists the instance; None if it does not say.

    Other instances in the answer show that it ignores the key; then only a list with ours says
    something, because one without it may not be all that the peer has.
    """
    matches = search(
        Level.IMAGE,
        {
            "StudyInstanceUID": reference.study_instance_uid,
            "SeriesInstanceUID": reference.series_instance_uid,
            "SOPInstanceUID": reference.sop_instance_uid,
        },
    )
    if matches is None:
        return None
    if any(match["SOPInstanceUID"] == reference.sop_instance_uid for match in matches.found):
        return True
    return None if matches.found or not matches.complete else False


def our_reports(search: Search, study_instance_uid: str) -> tuple[HeldReport, ...] | None:
    """The study's reports that this product made, by instance number; None if it does not say.

    What counts is who made a series, as ``_made_by_us`` tells from what the peer returns of it.
    Where that is too little to tell of one SR series, the whole answer is None: a report of ours
    that is overlooked would let other bytes go out under its UID.
    """
    series = search(Level.SERIES, _series_keys(study_instance_uid))
    if series is None or not series.complete:
        return None
    reports: set[HeldReport] = set()
    for match in series.found:
        ours = _made_by_us(match)
        if match["StudyInstanceUID"] not in ("", study_instance_uid) or ours is False:
            continue
        listed = _reports_of(search, study_instance_uid, match, ours)
        if listed is None:
            return None
        reports.update(listed)
    return tuple(sorted(reports, key=lambda r: (r.instance_number or 0, r.sop_instance_uid)))


def answers_queries(search: Search) -> bool:
    """Whether the peer says what it holds; it is asked for a study that nobody has."""
    return search(Level.SERIES, _series_keys(_NO_STUDY)) is not None


def _series_keys(study_instance_uid: str, series_instance_uid: str = "") -> dict[str, str]:
    return {
        "StudyInstanceUID": study_instance_uid,
        "SeriesInstanceUID": series_instance_uid,
        "Modality": "" if series_instance_uid else "SR",
        "Manufacturer": "",
        "SeriesDescription": "",
        "SeriesNumber": "",
    }


def _made_by_us(match: Match) -> bool | None:
    """Whether we made a series; None if it cannot be told.

    We did if it is an SR series whose Manufacturer is ours. Where the peer does not return that
    attribute, which it need not: if its description begins as ours does, and its number is ours or
    not returned. Another manufacturer is never overruled by a description, and another number
    rules ours out. The number alone proves nothing.
    """
    if match["Modality"] not in ("", "SR"):
        return False
    if match["Manufacturer"]:
        return match["Manufacturer"].casefold() == MANUFACTURER.casefold()
    if _number(match["SeriesNumber"]) not in (None, SERIES_NUMBER):
        return False
    if match["SeriesDescription"]:
        return match["SeriesDescription"].casefold().startswith(SERIES_NAME.casefold())
    return None


def _reports_of(
    search: Search, study_instance_uid: str, series: Match, ours: bool | None
) -> list[HeldReport] | None:
    """The reports of an SR series; None if the peer does not say, or not who made them.

    ``ours``: whether we made the series, if that is known; otherwise its instances may tell.
    """
    series_instance_uid = series["SeriesInstanceUID"]
    if not series_instance_uid:
        return None
    keys = {"SOPClassUID": "", "SOPInstanceUID": "", "InstanceNumber": ""}
    matches = search(Level.IMAGE, keys | _series_keys(study_instance_uid, series_instance_uid))
    if matches is None or not matches.complete:
        return None
    reports: list[HeldReport] = []
    for match in matches.found:
        if match["SeriesInstanceUID"] not in ("", series_instance_uid):
            continue
        made_by_us = _made_by_us(match) if ours is None else ours
        if made_by_us is None or not match["SOPInstanceUID"]:
            return None
        if made_by_us:
            reports.append(
                HeldReport(
                    series_instance_uid,
                    match["SOPClassUID"] or COMPREHENSIVE_3D_SR,
                    match["SOPInstanceUID"],
                    _number(match["InstanceNumber"]),
                )
            )
    return reports


def _number(text: str) -> int | None:
    """An integer string's value; None if it is none."""
    try:
        return int(text) if len(text) <= 12 else None
    except ValueError:
        return None
