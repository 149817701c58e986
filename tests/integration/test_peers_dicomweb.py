"""What goes to a DICOMweb server and where, and what its answers to queries mean."""

import json
import zlib
from pathlib import Path

import pytest

from lumbar.errors import LumbarError
from lumbar.peers import DicomwebDestination, Sent, qido, stow
from lumbar.peers.asking import holds
from lumbar.peers.deadline import Deadline
from lumbar.peers.outcomes import (
    Busy,
    InstanceReference,
    NotAuthorised,
    Refused,
    TooLate,
    Unintelligible,
)
from lumbar.reports.report import Report
from tests.factories.reports import STUDY, standard
from tests.memory import peak_memory
from tests.odd_peers import Connection, Http, Web, scripted

UID = standard().sop_instance_uid
REFERENCE = InstanceReference(STUDY, standard().series_instance_uid, UID)
HTML = b"<!DOCTYPE html><html><body>Welcome</body></html>"
BOMB = zlib.compress(b" " * 300 * 2**20, 9)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


STORED = Http(
    200, as_json({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [UID]}}]}})
)


def send(destination: DicomwebDestination, file: Path, not_after: float | None = None) -> Sent:
    return stow.send(destination, Deadline(destination.name, 10, 20), file, not_after)


@pytest.mark.parametrize("status", [307, 308])
def test_a_post_follows_a_redirection_on_the_same_server(report_file: Path, status: int) -> None:
    web = Web(Http(status, headers={"Location": "/pacs/studies"}), STORED)

    with web.running(token="secret") as destination:
        assert send(destination, report_file) == Sent("200")

    first, second = web.posted()
    assert second.path == "/pacs/studies"
    assert second.body == first.body
    assert second.headers["Authorization"] == "Bearer secret"


def test_credentials_go_to_no_other_server(report_file: Path) -> None:
    other = Web(STORED)
    with other.running() as elsewhere:
        web = Web(Http(307, headers={"Location": f"{elsewhere.url}/studies"}))
        with (
            web.running(token="secret") as destination,
            pytest.raises(Unintelligible, match="redirects to another server"),
        ):
            send(destination, report_file)
    assert other.requests == []


@pytest.mark.parametrize(
    ("login", "header_value"),
    [
        ({"username": "me", "password": "secret"}, "Basic bWU6c2VjcmV0"),
        ({"username": "mü", "password": "ü"}, "Basic bcO8OsO8"),
        ({"token": "abc"}, "Bearer abc"),
        ({}, None),
    ],
)
def test_the_file_is_sent_as_one_part_with_the_credentials(
    report: Report, report_file: Path, login: dict[str, str], header_value: str | None
) -> None:
    web = Web(STORED)

    with web.running(**login) as destination:
        assert send(destination, report_file) == Sent("200")

    (request,) = web.requests
    assert request.path == "/dicom-web/studies"
    assert request.headers.get("Authorization") == header_value
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    start, part, end = request.body.split(b"--" + boundary)
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n" + report.content + b"\r\n"
    assert (start, end) == (b"", b"--\r\n")


def test_the_environment_counts_only_where_the_destination_says_so(
    report_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    web, proxy = Web(STORED), Web(STORED)

    with proxy.running() as between:
        monkeypatch.setenv("HTTP_PROXY", between.url)
        monkeypatch.setenv("http_proxy", between.url)
        with web.running() as destination:
            send(destination, report_file)
        assert proxy.requests == []
        assert "Authorization" not in web.requests[0].headers
        with web.running(environment=True) as destination:
            send(destination, report_file)

    assert len(web.requests) == 1
    (request,) = proxy.requests
    assert request.path.startswith("http://127.0.0.1")
    assert request.headers["Authorization"] == "Basic bWU6c2VjcmV0"


def test_nothing_is_sent_once_it_is_too_late(report_file: Path) -> None:
    received: list[bytes] = []

    def takes(connection: Connection) -> None:
        while content := connection.stream.recv(2**16):
            received.append(content)

    with scripted(takes) as peer, pytest.raises(TooLate):
        send(DicomwebDestination("web", f"http://127.0.0.1:{peer.port}"), report_file, 0)
    assert b"DICM" not in b"".join(received)


@pytest.mark.parametrize("status", [200, 307, 503])
def test_an_answer_of_any_length_takes_little_memory(report_file: Path, status: int) -> None:
    web = Web(Http(status, BOMB, {"Content-Encoding": "deflate", "Location": "/x"}))

    with web.running() as destination:
        before = peak_memory()
        with pytest.raises((Unintelligible, Busy)):
            send(destination, report_file)
    assert peak_memory() - before < 100 * 2**20


@pytest.mark.parametrize(
    ("status", "body", "held"),
    [
        (200, as_json([{"00080018": {"vr": "UI", "Value": [UID]}}]), True),
        (200, as_json([{"00080018": UID}]), True),
        (200, as_json([{"00080018": {"Value": ["1.2"]}}]), None),
        (200, as_json([{"00080018": None}]), None),
        (200, as_json([{}]), None),
        (200, b"[null]", None),
        (200, b"{}", None),
        (200, b'{"error": 1}', None),
        (200, HTML, None),
        (200, b"", None),
        (200, b"[]", False),
        (204, b"", False),
        (400, b"", None),
        (401, b"", None),
        (302, b"", None),
        (501, b"", None),
    ],
)
def test_a_server_holds_what_it_lists(status: int, body: bytes, held: bool | None) -> None:
    with Web(gets=[Http(status, body)]).running() as destination:
        search = qido.search_of(destination, Deadline("web", 10, 20))
        assert holds(search, REFERENCE) is held


@pytest.mark.parametrize(
    ("studies", "held"), [(Http(200, b"[]"), False), (Http(204), False), (Http(404), None)]
)
def test_a_study_that_is_not_found_is_told_from_a_service_that_is_not(
    studies: Http,
    held: bool | None,
) -> None:
    with Web(gets=[Http(404), studies]).running() as destination:
        search = qido.search_of(destination, Deadline("web", 10, 20))
        assert holds(search, REFERENCE) is held


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Http(200, b"[]"), None),
        (Http(204), None),
        (Http(200, HTML), Unintelligible),
        (Http(200, b'{"error": 1}'), Unintelligible),
        (Http(302, headers={"Location": "http://localhost/login"}), Unintelligible),
        (Http(401), NotAuthorised),
        (Http(404), Refused),
        (Http(405), Refused),
        (Http(501), Refused),
        (Http(503), Busy),
    ],
)
def test_a_service_is_tested_by_a_query(answer: Http, error: type[LumbarError] | None) -> None:
    with Web(gets=[answer]).running() as destination:
        if error is None:
            qido.test(destination, Deadline("web", 10, 20))
        else:
            with pytest.raises(error, match="web"):
                qido.test(destination, Deadline("web", 10, 20))
