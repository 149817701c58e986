"""Sending to real peers, and to peers that misbehave."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from lumbar import peers
from lumbar.errors import Permanent, Transient
from lumbar.peers import Delivered, DicomwebDestination, DimseDestination, parse_destination
from lumbar.peers.demo_pacs import DemoPacs
from lumbar.peers.dimse import send_files
from lumbar.peers.outcomes import Busy, NotAuthorised, ProcessingFailed, Refused, Unreachable
from lumbar.reports.report import Report
from lumbar.reports.sr import build_sr
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import BundleIdentity, Provenance, TrainedOn
from tests.peers import Orthanc, Storescp, free_port

ABORTS = -1  # in place of a status: the peer aborts the association
STUDY = "1.2.826.0.1.3680043.8.498.2"


def header() -> Dataset:
    mr = Dataset()
    mr.SOPClassUID, mr.SOPInstanceUID = MRImageStorage, f"{STUDY}.1.1"
    mr.StudyInstanceUID, mr.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    mr.PatientID = "P1"
    return mr


@pytest.fixture(scope="module")
def report() -> Report:
    bundle = BundleIdentity("baseline", "1", "ab" * 32, TrainedOn.NOTHING, "1")
    findings = [
        Finding(key.condition, key.level, reason="no sagittal T1 series") for key in ALL_FINDINGS
    ]
    created = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001
    return build_sr(
        [header()], findings, Provenance(bundle, "0.1.0", "cd" * 32, (), "ef" * 32), created=created
    )


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def data_set(content: bytes) -> bytes:
    """What follows the file meta information, which each archive writes itself."""
    file = BytesIO(content)
    meta = dcmread(BytesIO(content), stop_before_pixels=True).file_meta
    file.seek(132 + 12 + meta.FileMetaInformationGroupLength)
    return file.read()


@pytest.mark.parametrize("protocol", ["dimse", "dicomweb"])
def test_orthanc_stores_the_report_as_it_was_built(
    orthanc: Orthanc, report: Report, protocol: str
) -> None:
    delivered = peers.send(getattr(orthanc, protocol), report.content)

    assert delivered.warning is None
    (instance,) = orthanc.rest("/instances")
    stored = orthanc.download(f"/instances/{instance}/file")
    assert sha256(data_set(stored)).hexdigest() == sha256(data_set(report.content)).hexdigest()
    tags = orthanc.rest(f"/instances/{instance}/simplified-tags")
    assert (tags["SOPInstanceUID"], tags["StudyInstanceUID"], tags["Modality"]) == (
        report.sop_instance_uid,
        STUDY,
        "SR",
    )
    orthanc.delete(f"/instances/{instance}")


@pytest.mark.parametrize("protocol", ["dimse", "dicomweb"])
def test_sending_again_causes_no_failure_and_no_second_report(
    orthanc: Orthanc, report: Report, protocol: str
) -> None:
    for _ in range(2):
        peers.send(getattr(orthanc, protocol), report.content)

    (instance,) = orthanc.rest("/instances")
    orthanc.delete(f"/instances/{instance}")


def test_both_protocols_of_orthanc_pass_the_connection_test(orthanc: Orthanc) -> None:
    for destination in orthanc.destinations:
        peers.test(destination)


def test_a_wrong_called_ae_title_is_named_and_a_temporary_error(
    orthanc: Orthanc, report: Report
) -> None:
    wrong = DimseDestination("pacs", "127.0.0.1", orthanc.dicom_port, "NOBODY")

    with pytest.raises(
        Unreachable, match=r"pacs \(NOBODY at .*rejected.*Called AE title not recognised"
    ):
        peers.send(wrong, report.content)
    with pytest.raises(Unreachable, match="NOBODY"):
        peers.test(wrong)


def test_a_url_that_is_not_the_dicomweb_root_is_refused(orthanc: Orthanc, report: Report) -> None:
    wrong = DicomwebDestination("archive", f"http://127.0.0.1:{orthanc.http_port}/nothing")

    with pytest.raises(Refused, match="HTTP 404"):
        peers.send(wrong, report.content)
    with pytest.raises(Refused, match="HTTP 404"):
        peers.test(wrong)


@pytest.mark.parametrize(
    "url", ["dicom://PACS@127.0.0.1:{port}", "http://127.0.0.1:{port}/dicom-web"]
)
def test_a_closed_port_is_a_temporary_error(report: Report, url: str) -> None:
    closed = parse_destination("pacs", url.format(port=free_port()))

    with pytest.raises(Unreachable, match=r"^pacs .*does not answer") as failure:
        peers.send(closed, report.content)
    assert isinstance(failure.value, Transient)
    assert "\n" not in str(failure.value)
    with pytest.raises(Unreachable, match="does not answer"):
        peers.test(closed)


def test_an_unknown_host_is_a_temporary_error(report: Report) -> None:
    for url in ("dicom://PACS@pacs.invalid:104", "http://pacs.invalid/dicom-web"):
        with pytest.raises(Unreachable, match=r"^pacs"):
            peers.send(parse_destination("pacs", url), report.content)


def test_a_peer_that_never_responds_times_out(report: Report) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for url in (f"dicom://PACS@127.0.0.1:{port}", f"http://127.0.0.1:{port}/dicom-web"):
            with pytest.raises(Unreachable, match="does not answer"):
                peers.send(parse_destination("pacs", url), report.content, timeout_s=0.2)


def test_a_peer_that_aborts_while_storing_is_a_temporary_error(report: Report) -> None:
    with answering(ABORTS) as (destination, stored), pytest.raises(Unreachable, match="was lost"):
        peers.send(destination, report.content)
    assert len(stored) == 1


def test_files_after_an_abort_are_reported_one_by_one(tmp_path: Path) -> None:
    paths = [image(tmp_path / f"{n}.dcm") for n in range(3)]

    with answering(ABORTS, accepts=MRImageStorage) as (destination, stored):
        failed = send_files(destination, paths)

    assert [file.path for file in failed] == paths
    assert len(stored) == 1


def image(path: Path, syntax: UID = ImplicitVRLittleEndian) -> Path:
    """A small file. Sending does not decode it, so an encapsulated syntax needs no real image."""
    mr = header()
    mr.SOPInstanceUID = f"{STUDY}.1.{int(sha256(path.name.encode()).hexdigest()[:8], 16)}"
    mr.file_meta = FileMetaDataset()
    mr.file_meta.TransferSyntaxUID = syntax
    mr.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:  # a retired group length, which encoding it again would drop
        file.write(
            b"\x32\x00\x00\x00"
            + (b"\x04\0\0\0" if syntax.is_implicit_VR else b"UL\x04\0")
            + bytes(4)
        )
    return path


def test_files_of_every_kind_arrive_unchanged_over_one_association(
    tmp_path: Path, report: Report
) -> None:
    sr, damaged = tmp_path / "sr.dcm", tmp_path / "broken.dcm"
    sr.write_bytes(report.content)
    damaged.write_bytes(b"no DICOM")
    sent = [sr, image(tmp_path / "plain.dcm"), image(tmp_path / "j2k.dcm", JPEG2000Lossless)]
    steps: list[None] = []

    with Storescp(tmp_path) as peer:
        failed = send_files(peer.dimse, [*sent, damaged], lambda: steps.append(None))

    assert [(file.path, file.reason) for file in failed] == [
        (damaged, "broken.dcm is not a readable DICOM file")
    ]
    assert len(steps) == 4
    stored = {data_set(path.read_bytes()) for path in peer.folder.iterdir()}
    assert stored == {data_set(path.read_bytes()) for path in sent}


def test_the_demo_pacs_keeps_what_it_receives_and_signals_it(
    tmp_path: Path, report: Report
) -> None:
    with DemoPacs(tmp_path / "pacs") as pacs:
        destination = DimseDestination("demo", "127.0.0.1", pacs.port, pacs.ae_title)
        peers.test(destination)
        peers.send(destination, report.content)
        received = pacs.wait_for(
            lambda r: r.sop_instance_uid == report.sop_instance_uid, timeout_s=10
        )
        with pytest.raises(Transient, match="no such instance"):
            pacs.wait_for(lambda r: r.sop_class_uid == MRImageStorage, timeout_s=0)

    assert received.sop_class_uid == Comprehensive3DSRStorage
    assert data_set(received.path.read_bytes()) == data_set(report.content)
    assert list(pacs.folder.iterdir()) == [received.path]


@contextmanager
def answering(
    status: int, *, matches: int | None = None, accepts: str = Comprehensive3DSRStorage
) -> Iterator[tuple[DimseDestination, list[str]]]:
    """An SCP that answers every C-STORE with ``status``, and C-FIND with so many ``matches``.

    With None, it offers no C-FIND.
    """
    stored: list[str] = []

    def store(event: Any) -> int:
        stored.append(str(event.request.AffectedSOPInstanceUID))
        if status == ABORTS:
            event.assoc.abort()
        return status

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for _ in range(matches or 0):
            yield 0xFF00, event.identifier

    entity = AE(ae_title="ODD")
    entity.add_supported_context(accepts)
    if matches is not None:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)],
    )
    try:
        yield DimseDestination("odd", "127.0.0.1", server.server_address[1], "ODD"), stored
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (0xA700, Busy, 1),
        (0x0213, Busy, 1),
        (0x0110, ProcessingFailed, 1),
        (0x0124, NotAuthorised, 1),
        (0x0117, Refused, 1),
        (0x0122, Refused, 1),
        (0xA900, Refused, 1),
        (0xC000, Refused, 2),
        (0xC211, Refused, 2),
    ],
)
def test_a_status_decides_whether_to_retry(
    report: Report, status: int, error: type[Exception], attempts: int
) -> None:
    with (
        answering(status) as (destination, stored),
        pytest.raises(error, match=f"^odd .*{status:04X}"),
    ):
        peers.send(destination, report.content)

    assert len(stored) == attempts


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_delivered(report: Report, status: int) -> None:
    with answering(status) as (destination, stored):
        delivered = peers.send(destination, report.content)

    assert delivered.status == f"{status:04X}"
    assert delivered.warning
    assert len(stored) == 1


def test_a_duplicate_is_delivered_once_the_peer_lists_it(report: Report) -> None:
    with answering(0x0111, matches=1) as (destination, _):
        assert peers.send(destination, report.content) == Delivered("0111", "it was already stored")


def test_a_duplicate_that_the_peer_does_not_list_is_refused(report: Report) -> None:
    with (
        answering(0x0111, matches=0) as (destination, _),
        pytest.raises(Refused, match="does not list"),
    ):
        peers.send(destination, report.content)


def test_a_duplicate_is_delivered_where_the_peer_cannot_be_queried(report: Report) -> None:
    with answering(0x0111) as (destination, _):
        assert "cannot be queried" in (peers.send(destination, report.content).warning or "")


def test_a_peer_that_accepts_no_reports_is_a_permanent_error(report: Report) -> None:
    with (
        answering(0, accepts=Verification) as (destination, _),
        pytest.raises(Refused, match="3D SR") as failure,
    ):
        peers.send(destination, report.content)
    assert isinstance(failure.value, Permanent)


def test_one_transfer_syntax_that_is_not_accepted_does_not_stop_the_others(tmp_path: Path) -> None:
    plain, packed = image(tmp_path / "plain.dcm"), image(tmp_path / "j2k.dcm", JPEG2000Lossless)

    with answering(0, accepts=MRImageStorage) as (destination, stored):
        (failed,) = send_files(destination, [packed, plain])

    assert failed.path == packed
    assert "does not accept MR Image Storage in JPEG 2000" in failed.reason
    assert len(stored) == 1


@dataclass
class Web:
    """An HTTP server with one response to everything; it records the requests."""

    status: int
    body: object = None
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @contextmanager
    def running(self, **login: str) -> Iterator[DicomwebDestination]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                web.requests.append((self.path, dict(self.headers), content))
                response = b"" if web.body is None else json.dumps(web.body).encode()
                self.send_response(web.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(response)))
                self.end_headers()
                self.wfile.write(response)

            def log_message(self, *_: object) -> None: ...

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield DicomwebDestination(
                    "web", f"http://127.0.0.1:{server.server_port}/dicom-web", **login
                )
            finally:
                server.shutdown()
                thread.join()


def failed(report: Report, reason: int) -> dict[str, object]:
    item = {
        "00081155": {"vr": "UI", "Value": [report.sop_instance_uid]},
        "00081197": {"vr": "US", "Value": [reason]},
    }
    return {"00081198": {"vr": "SQ", "Value": [item]}}


@pytest.mark.parametrize(
    ("status", "reason", "error", "message"),
    [
        (202, 0xA700, Busy, "A700"),
        (200, 0xA700, Busy, "A700"),
        (202, 0xC122, Refused, "C122"),
        (409, 0x0110, ProcessingFailed, "0110"),
        (409, 0xA900, Refused, "A900"),
        (409, None, Refused, "no reason"),
        (400, None, Refused, "400"),
        (415, None, Refused, "415"),
        (302, None, Refused, "302"),
        (401, None, NotAuthorised, "401"),
        (403, None, NotAuthorised, "403"),
        (429, None, Busy, "429"),
        (503, None, Busy, "503"),
    ],
)
def test_an_http_response_decides_whether_to_retry(
    report: Report, status: int, reason: int | None, error: type[Exception], message: str
) -> None:
    web = Web(status, None if reason is None else failed(report, reason))

    with web.running() as destination, pytest.raises(error, match=f"^web .*{message}"):
        peers.send(destination, report.content)

    assert len(web.requests) == 1


def test_a_warning_of_the_server_is_delivered(report: Report) -> None:
    item = {
        "00081155": {"vr": "UI", "Value": [report.sop_instance_uid]},
        "00081196": {"vr": "US", "Value": [0xB000]},
    }

    with Web(202, {"00081199": {"vr": "SQ", "Value": [item]}}).running() as destination:
        assert peers.send(destination, report.content) == Delivered(
            "202", "stored, with warning B000"
        )


@pytest.mark.parametrize(
    ("login", "header_value"),
    [
        ({"username": "me", "password": "secret"}, "Basic bWU6c2VjcmV0"),
        ({"token": "abc"}, "Bearer abc"),
        ({}, None),
    ],
)
def test_the_file_is_sent_as_one_part_with_the_credentials(
    report: Report, login: dict[str, str], header_value: str | None
) -> None:
    web = Web(200)

    with web.running(**login) as destination:
        assert peers.send(destination, report.content) == Delivered("200")

    ((path, headers, body),) = web.requests
    assert path == "/dicom-web/studies"
    assert headers.get("Authorization") == header_value
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    start, part, end = body.split(b"--" + boundary)
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n" + report.content + b"\r\n"
    assert (start, end) == (b"", b"--\r\n")
