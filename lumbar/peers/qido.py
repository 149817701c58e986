"""Asks a DICOMweb server what it holds, by QIDO-RS (PS3.18 section 10.6)."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import quote, urlencode

from lumbar.peers.asking import Level, Match, Matches, Search
from lumbar.peers.deadline import Deadline
from lumbar.peers.destinations import DicomwebDestination
from lumbar.peers.dicom_json import DicomObject, read_objects, text
from lumbar.peers.http_requests import Answer, get, raise_unavailable
from lumbar.peers.outcomes import Refused, Unintelligible

_NO_MATCH = 204
_NOT_FOUND = 404  # the service, or the study
_NO_SEARCH = (_NOT_FOUND, 405, 410, 501)
_CANNOT_BE_ASKED = (400, 401, 403, 406, 407, *_NO_SEARCH)
# Servers limit lists by default; so long a list may not be all.
_LONGEST_LIST = 100
_IN_THE_PATH = ("StudyInstanceUID", "SeriesInstanceUID")


def test(destination: DicomwebDestination, deadline: Deadline) -> None:
    """Tests the service by a query for one study.

    Raises:
        NotSent: see ``lumbar.peers.outcomes``.
        Unintelligible: it answers with something other than DICOM.
        Refused: the URL may not be the DICOMweb root.
    """
    answer = get(destination, "/studies?limit=1", deadline)
    if answer.status in _NO_SEARCH:
        raise Refused(
            f"{destination.name} cannot be asked for studies (HTTP {answer.status}); "
            "check that its URL is the DICOMweb root"
        )
    raise_unavailable(destination, answer.status)
    if answer.status not in (200, _NO_MATCH):
        raise Refused(
            f"{destination.name} refused it (HTTP {answer.status}); "
            "check that its URL is the DICOMweb root"
        )
    if answer.body and _read(answer) is None and "dicom" not in answer.content_type:
        raise Unintelligible(
            f"{destination.name} answers with something other than DICOM; "
            "check that its URL is the DICOMweb root, and whether it requires a login"
        )


def search_of(destination: DicomwebDestination, deadline: Deadline) -> Search:
    """The server, to be searched."""
    return partial(_search, destination, deadline)


def _search(
    destination: DicomwebDestination, deadline: Deadline, level: Level, keys: Mapping[str, str]
) -> Matches | None:
    """See ``lumbar.peers.asking.Search``."""
    try:
        answer = get(destination, _path(level, keys), deadline)
        if answer.status != _NOT_FOUND:
            return _matches(destination, answer, keys)
        # Some answer so for a study that they do not have, others where there is no QIDO-RS.
        study = urlencode({"StudyInstanceUID": keys["StudyInstanceUID"]})
        studies = _matches(destination, get(destination, f"/studies?{study}", deadline), keys)
    except Unintelligible:
        return None
    return studies if studies is not None and not studies.found else None


def _path(level: Level, keys: Mapping[str, str]) -> str:
    study, series = (quote(keys[keyword], safe="") for keyword in _IN_THE_PATH)
    path = f"/studies/{study}/series"
    if level is Level.IMAGE:
        path += f"/{series}/instances"
    others = {keyword: value for keyword, value in keys.items() if keyword not in _IN_THE_PATH}
    filters = [(keyword, value) for keyword, value in others.items() if value]
    returned = [("includefield", keyword) for keyword, value in others.items() if not value]
    return f"{path}?{urlencode([*filters, *returned])}"


def _matches(
    destination: DicomwebDestination, answer: Answer, keys: Mapping[str, str]
) -> Matches | None:
    """What an answer lists; None if the server cannot be asked.

    Raises:
        Busy: the server is busy.
        Unintelligible: it redirects elsewhere.
    """
    if answer.status == _NO_MATCH:
        return Matches(())
    if answer.status in _CANNOT_BE_ASKED:
        return None
    raise_unavailable(destination, answer.status)
    objects = _read(answer) if answer.status == 200 else None
    if objects is None:
        return None
    found = tuple(_match(each, keys) for each in objects)
    return Matches(found, complete=len(found) < _LONGEST_LIST)


def _match(dicom_object: DicomObject, keys: Mapping[str, str]) -> Match:
    return {keyword: text(dicom_object, keyword) for keyword in keys}


def _read(answer: Answer) -> list[DicomObject] | None:
    """The listed objects; None if the answer is no list of them."""
    if not answer.body.lstrip().startswith((b"[", b"\xef\xbb\xbf[")):
        return None
    return read_objects(answer.body)
