"""Asks a peer what it holds by C-FIND, in the Study Root model (PS3.4 C.6.2)."""

from collections.abc import Mapping
from functools import partial
from io import BytesIO

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lumbar.elements import text
from lumbar.peers.asking import Level, Match, Matches, Search
from lumbar.peers.association import Association, Ended, Rejected
from lumbar.peers.commands import C_FIND, PENDING, Request, responses
from lumbar.peers.deadline import Deadline
from lumbar.peers.destinations import DimseDestination
from lumbar.peers.outcomes import SUCCESS, Busy, Refused, Unintelligible

_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_FIND_CLASS = "1.2.840.10008.5.1.4.1.2.2.1"
_FIND = [(_FIND_CLASS, str(syntax)) for syntax in _SYNTAXES]
VERIFICATION = [("1.2.840.10008.1.1", str(syntax)) for syntax in _SYNTAXES]
_MOST_MATCHES = 5000


def search_of(destination: DimseDestination, deadline: Deadline) -> Search:
    """The peer, to be searched."""
    return partial(_search, destination, deadline)


def _search(
    destination: DimseDestination, deadline: Deadline, level: Level, keys: Mapping[str, str]
) -> Matches | None:
    """See ``lumbar.peers.asking.Search``. Keys that are empty are only to be returned.

    Raises:
        Rejected: the peer rejected the association, for a reason that may pass.
    """
    # Beside verification, so that a peer without C-FIND need not reject the association.
    try:
        with Association(destination, [*_FIND, *VERIFICATION], deadline) as association:
            encoding = next((each for each in _FIND if each in association.accepted), None)
            if encoding is None:
                return None
            implicit = encoding[1] == ImplicitVRLittleEndian
            matches: list[Match] = []
            complete = True
            for response in responses(
                association,
                destination.name,
                association.accepted[encoding],
                Request(C_FIND, _FIND_CLASS),
                _identifier(level, keys, implicit=implicit),
            ):
                if response.status not in PENDING:
                    return _result(response.status, Matches(tuple(matches), complete), destination)
                match = _decoded(response.identifier, keys, implicit=implicit)
                if match is None:
                    complete = False
                else:
                    matches.append(match)
                if len(matches) == _MOST_MATCHES:
                    association.abort()
                    return Matches(tuple(matches), complete=False)
    except (Refused, Unintelligible, Ended):  # Orthanc ends it where it does not know who asks
        return None
    except Rejected as error:
        if error.for_good:
            return None
        raise
    return None


def _result(status: int, matches: Matches, destination: DimseDestination) -> Matches | None:
    """What the search found, by its last status (PS3.4 table C.4-1).

    Raises:
        Busy: the peer is out of resources.
    """
    if status == SUCCESS:
        return matches
    if 0xA700 <= status <= 0xA7FF:
        raise Busy(f"{destination.name} is out of resources (status {status:04X}); try again later")
    return Matches(matches.found, complete=False) if matches.found else None


def _identifier(level: Level, keys: Mapping[str, str], *, implicit: bool) -> bytes:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value or None)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    write_dataset(buffer, query)
    return buffer.getvalue()


def _decoded(identifier: bytes, keys: Mapping[str, str], *, implicit: bool) -> Match | None:
    """The identifier's values; None if it cannot be read, whatever a parser makes of it."""
    try:
        dataset = read_dataset(BytesIO(identifier), implicit, True)
        return {keyword: text(dataset, keyword) for keyword in keys}
    except Exception:  # noqa: BLE001 - damaged bytes raise errors of every kind
        return None
