"""What a STOW-RS answer means for the instance that was sent."""

import gzip
import json
import zlib
from pathlib import Path

import pytest

from lumbar.errors import LumbarError
from lumbar.peers import DicomwebDestination, Sent, stow
from lumbar.peers.deadline import Deadline
from lumbar.peers.http_requests import LONGEST_ANSWER
from lumbar.peers.outcomes import (
    Busy,
    InstanceReference,
    NotAuthorised,
    ProcessingFailed,
    Refused,
    Unintelligible,
    Unreachable,
)
from tests.factories.reports import STUDY, standard
from tests.odd_peers import Http, Web

UID = standard().sop_instance_uid
REFERENCE = InstanceReference(STUDY, standard().series_instance_uid, UID)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def listing(sequence: str, uid: object = UID, **more: object) -> dict[str, object]:
    """A store response with one item in a sequence."""
    item = {"00081155": {"vr": "UI", "Value": [uid]}}
    item |= {tag[1:]: {"vr": "US", "Value": [value]} for tag, value in more.items()}
    return {sequence: {"vr": "SQ", "Value": [item]}}


def stored(uid: object = UID, **more: object) -> bytes:
    return as_json(listing("00081199", uid, **more))


def failed(reason: object, uid: object = UID) -> bytes:
    return as_json(listing("00081198", uid, t00081197=reason))


def as_xml(sequence: str, reason: str = "", uid: str = UID, head: str = "") -> bytes:
    reason = f'<DicomAttribute tag="00081197"><Value number="1">{reason}</Value></DicomAttribute>'
    return f"""<?xml version="1.0" encoding="UTF-8"?>{head}
        <NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
          <DicomAttribute tag="{sequence}" vr="SQ" keyword="Some"><Item number="1">
            <DicomAttribute tag="00081155" vr="UI"><Value number="1">{uid}</Value></DicomAttribute>
            {reason}
          </Item></DicomAttribute></NativeDicomModel>""".encode()


LISTS = Http(200, as_json([{"00080018": {"vr": "UI", "Value": [UID]}}]))
LISTS_NOTHING = Http(200, b"[]")
CANNOT_BE_ASKED = Http(404)
HTML = b"<!DOCTYPE html><html><body>Welcome</body></html>"
BOMB = zlib.compress(b" " * 300 * 2**20, 9)


def send(destination: DicomwebDestination, file: Path, not_after: float | None = None) -> Sent:
    return stow.send(destination, Deadline(destination.name, 10, 20), file, not_after)


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (Http(200, stored()), Sent("200")),
        (Http(202, stored()), Sent("202", "stored, with an unspecified warning")),
        (Http(202, stored(t00081196=0xB000)), Sent("202", "stored, with warning B000")),
        (Http(200, stored(t00081196="45056")), Sent("200", "stored, with warning B000")),
        (Http(200, b"\xef\xbb\xbf" + stored()), Sent("200")),
        (Http(200, b"[" + stored() + b"]"), Sent("200")),
        (Http(200, stored(f" {UID}\0")), Sent("200")),
        (
            Http(200, as_json({"ReferencedSOPSequence": [{"ReferencedSOPInstanceUID": UID}]})),
            Sent("200"),
        ),
        (Http(200, as_xml("00081199")), Sent("200")),
        (Http(200, as_xml("00081199").decode().encode("utf-16")), Unintelligible),
        (Http(200, gzip.compress(stored()), {"Content-Encoding": "gzip"}), Sent("200")),
        (Http(200, zlib.compress(stored()), {"Content-Encoding": "deflate"}), Sent("200")),
        (Http(200, stored(), {"Content-Type": "text/html"}), Sent("200")),
        (Http(200, failed(0xA700)), Busy),
        (Http(202, failed(0xA700)), Busy),
        (Http(200, failed("42752")), Busy),
        (Http(200, failed("A700")), Busy),
        (Http(200, failed(42752.0)), Busy),
        (Http(200, as_xml("00081198", "42752")), Busy),
        (Http(200, as_xml("00081198", "43264")), Refused),
        (Http(202, failed(0xC122)), ProcessingFailed),
        (Http(202, failed(None)), ProcessingFailed),
        (Http(202, failed(0xA900, uid=None)), Refused),  # it can only be ours
        (Http(409, failed(0x0110)), ProcessingFailed),
        (Http(409, failed(0xA900)), Refused),
        (Http(409, failed(0x0124)), NotAuthorised),
        (Http(400, failed(0xA900)), Refused),
        (Http(503, failed(0xA900)), Refused),
        (Http(409), ProcessingFailed),
        (
            Http(409, failed(0x0111)),
            Sent("0111", "the peer reports that it was already stored, and cannot be asked"),
        ),
        (Http(200, HTML), Unintelligible),
        (Http(200, b"OK"), Unintelligible),
        (Http(200, b""), Unintelligible),
        (Http(200, b"{}"), Unintelligible),
        (Http(200, b"[]"), Unintelligible),
        (Http(200, b"[null]"), Unintelligible),
        (Http(200, b"null"), Unintelligible),
        (Http(200, b"17"), Unintelligible),
        (Http(200, b"{" * 10), Unintelligible),
        (Http(200, b"[" * 500_000), Unintelligible),
        (Http(200, b"<a>" * 300_000), Unintelligible),
        (Http(200, b'{"error": "no space left"}'), Unintelligible),
        (Http(200, b'{"00081199": {"vr": "SQ", "Value": null}}'), Unintelligible),
        (Http(200, b'{"00081199": {"vr": "SQ", "Value": [null]}}'), Unintelligible),
        (Http(200, b'{"00081199": {"vr": "SQ", "Value": "x"}}'), Unintelligible),
        (Http(200, b'{"00081199": [[]]}'), Unintelligible),
        (Http(200, b'{"00081199": null}'), Unintelligible),
        (Http(200, stored([UID])), Unintelligible),
        (Http(200, stored("1.2.3")), Unintelligible),
        (Http(200, stored(None)), Unintelligible),
        (Http(200, as_xml("00081199", uid="1.2.3")), Unintelligible),
        (Http(200, as_xml("00081199", head="<!DOCTYPE x>")), Unintelligible),
        (
            Http(200, as_xml("00081199", "&x;", head='<!DOCTYPE x [<!ENTITY x "1">]>')),
            Unintelligible,
        ),
        (Http(200, stored() + b" " * LONGEST_ANSWER), Unintelligible),
        (Http(200, BOMB, {"Content-Encoding": "deflate"}), Unintelligible),
        (Http(200, stored(), {"Content-Encoding": "gzip"}), Unintelligible),
        (Http(200, stored(), {"Content-Encoding": "br"}), Unintelligible),
        (Http(200, stored()[:20], {"Content-Length": "20"}), Unintelligible),
        (Http(202, b""), Unintelligible),
        (Http(203, HTML), Unintelligible),
        (Http(201), Sent("201", "the server does not say what it stored, and cannot be asked")),
        (Http(204), Sent("204", "the server does not say what it stored, and cannot be asked")),
        (Http(401), NotAuthorised),
        (Http(403), NotAuthorised),
        (Http(407), NotAuthorised),
        (Http(404), Unreachable),
        (Http(405), Unreachable),
        (Http(406), Unreachable),
        (Http(410), Unreachable),
        (Http(408), Busy),
        (Http(423), Busy),
        (Http(425), Busy),
        (Http(429), Busy),
        (Http(500), Busy),
        (Http(503, HTML), Busy),
        (Http(507), Busy),
        (Http(503, stored()), Busy),
        (Http(400), Refused),
        (Http(413), Refused),
        (Http(415), Refused),
        (Http(422), Refused),
        (Http(301, headers={"Location": "/other"}), Unintelligible),
        (Http(302, headers={"Location": "/login"}), Unintelligible),
        (Http(303, headers={"Location": "/login"}), Unintelligible),
        (Http(304), Unintelligible),
        (Http(307), Unintelligible),
        (Http(307, headers={"Location": "http://localhost:{port}/x"}), Unintelligible),
        (Http(307, headers={"Location": "http://127.0.0.1:1/x"}), Unintelligible),
        (Http(307, headers={"Location": "http://u@127.0.0.1:{port}/x"}), Unintelligible),
        (Http(307, headers={"Location": "ftp://127.0.0.1/x"}), Unintelligible),
        (Http(307, headers={"Location": "http://[::1/x"}), Unintelligible),
        (Http(307, headers={"Location": "/again"}), Unintelligible),
    ],
)
def test_an_answer_is_judged_by_what_it_says_of_the_instance(
    report_file: Path, answer: Http, sent: Sent | type[LumbarError]
) -> None:
    web = Web(answer, gets=[CANNOT_BE_ASKED])

    with web.running() as destination:
        if isinstance(sent, type):
            with pytest.raises(sent, match="web") as failure:
                send(destination, report_file)
            assert "\n" not in str(failure.value)
            assert "127.0.0.1" not in str(failure.value)
        else:
            assert send(destination, report_file) == sent


@pytest.mark.parametrize(
    ("answer", "question", "sent"),
    [
        (
            Http(200, HTML),
            LISTS,
            Sent("200", "the answer (HTTP 200) does not say that it is stored", listed=True),
        ),
        (
            Http(200, stored("1.2.3")),
            LISTS,
            Sent("200", "the answer (HTTP 200) does not say that it is stored", listed=True),
        ),
        (Http(200, HTML), LISTS_NOTHING, Unintelligible),
        (Http(200, HTML), Http(204), Unintelligible),
        (Http(200, HTML), Http(200, HTML), Unintelligible),
        (Http(200, HTML), Http(503), Busy),
        (Http(200, HTML), Http(403), Unintelligible),
        (Http(201), LISTS, Sent("201", listed=True)),
        (Http(204), LISTS, Sent("204", listed=True)),
        (
            Http(204),
            LISTS_NOTHING,
            Sent("204", "the server does not say what it stored, and does not list it"),
        ),
        (
            Http(409),
            LISTS,
            Sent("409", "the answer (HTTP 409) does not say that it is stored", listed=True),
        ),
        (Http(409), LISTS_NOTHING, ProcessingFailed),
        (Http(409, failed(0x0111)), LISTS, Sent("409", "it was already stored", listed=True)),
        (
            Http(409, failed(0x0111)),
            LISTS_NOTHING,
            Sent("0111", "it was already stored, and is not listed (yet)"),
        ),
        (
            Http(409, failed(0xB00E)),
            LISTS,
            Sent("409", "the answer (HTTP 409) does not say that it is stored", listed=True),
        ),
        (Http(409, failed(0xB00E)), LISTS_NOTHING, ProcessingFailed),
        (Http(200, failed(0)), LISTS_NOTHING, ProcessingFailed),
    ],
)
def test_a_server_that_does_not_say_is_asked(
    report_file: Path, answer: Http, question: Http, sent: Sent | type[LumbarError]
) -> None:
    web = Web(answer, gets=[question])

    with web.running(token="secret") as destination:
        if isinstance(sent, Sent):
            assert send(destination, report_file) == sent
        else:
            with pytest.raises(sent, match="web"):
                send(destination, report_file)

    question = web.requests[1]
    series = f"/dicom-web/studies/{STUDY}/series/{REFERENCE.series_instance_uid}/instances"
    assert question.path == f"{series}?SOPInstanceUID={UID}"
    assert question.headers["Authorization"] == "Bearer secret"
