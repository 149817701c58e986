"""Real peers, and the process in which they are talked to."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import Event, Thread

import pytest
from pydicom import dcmread

from lumbar.errors import LumbarError, Permanent
from lumbar.peers import (
    DicomwebDestination,
    DimseDestination,
    HeldReport,
    InstanceReference,
    Peer,
    Refused,
    Sent,
    parse_destination,
)
from lumbar.peers.outcomes import Busy, TooLate, Unreachable
from lumbar.reports.report import Report
from tests.factories.reports import STUDY
from tests.integration.test_peers_dimse import data_set
from tests.odd_peers import Connection, Http, Web, scripted
from tests.peers import Orthanc, Storescp, free_port


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def reference(report: Report) -> InstanceReference:
    return InstanceReference(STUDY, report.series_instance_uid, report.sop_instance_uid)


@pytest.fixture
def foreign(tmp_path: Path, report: Report) -> Path:
    """Another product's SR of the same study, which is named as ours."""
    other = dcmread(BytesIO(report.content))
    other.Manufacturer, other.SeriesInstanceUID = "Other", "1.9"
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.9.1"
    other.save_as(tmp_path / "other.dcm", enforce_file_format=True)
    return tmp_path / "other.dcm"


@pytest.mark.parametrize("protocol", ["dimse", "dicomweb"])
def test_orthanc_stores_the_report_as_it_was_built_and_lists_it(
    orthanc: Orthanc,
    report: Report,
    report_file: Path,
    reference: InstanceReference,
    foreign: Path,
    protocol: str,
) -> None:
    with Peer(getattr(orthanc, protocol)) as peer:
        peer.test()
        assert peer.answers_queries()
        assert peer.holds(reference) is False
        assert peer.our_reports(STUDY) == ()

        assert peer.send(report_file) == Sent({"dimse": "0000", "dicomweb": "200"}[protocol])
        assert peer.send(report_file).status in ("0000", "200")
        peer.send(foreign)

        assert peer.holds(reference) is True
        assert peer.our_reports(STUDY) == (
            HeldReport(
                report.series_instance_uid, report.sop_class_uid, report.sop_instance_uid, 1
            ),
        )

    stored = [orthanc.download(f"/instances/{each}/file") for each in orthanc.rest("/instances")]
    assert len(stored) == 2
    assert sha256(data_set(report.content)).hexdigest() in {
        sha256(data_set(content)).hexdigest() for content in stored
    }
    for each in orthanc.rest("/instances"):
        orthanc.delete(f"/instances/{each}")


def test_a_peer_without_queries_cannot_be_asked(
    tmp_path: Path, report_file: Path, reference: InstanceReference
) -> None:
    with Storescp(tmp_path) as storescp, Peer(storescp.dimse) as peer:
        assert peer.send(report_file) == Sent("0000")
        peer.test()
        assert not peer.answers_queries()
        assert peer.holds(reference) is None
        assert peer.our_reports(STUDY) is None


def test_orthanc_ends_the_connection_of_who_may_not_ask(
    tmp_path: Path, report_file: Path, reference: InstanceReference
) -> None:
    with (
        Orthanc(tmp_path / "orthanc", DicomAlwaysAllowFind=False) as orthanc,
        Peer(orthanc.dimse) as peer,
    ):
        assert peer.send(report_file) == Sent("0000")
        assert not peer.answers_queries()
        assert peer.holds(reference) is None


def test_a_wrong_called_ae_title_is_named_and_a_temporary_error(
    orthanc: Orthanc, report_file: Path
) -> None:
    wrong = DimseDestination("pacs", "127.0.0.1", orthanc.dicom_port, "NOBODY")

    with Peer(wrong) as peer:
        with pytest.raises(
            Unreachable, match=r"pacs \(NOBODY at .*rejected.*called AE title not recognised"
        ):
            peer.send(report_file)
        with pytest.raises(Unreachable, match="NOBODY"):
            peer.test()


def test_a_url_that_is_not_the_dicomweb_root_holds_the_destination(
    orthanc: Orthanc, report_file: Path
) -> None:
    wrong = DicomwebDestination("archive", f"http://127.0.0.1:{orthanc.http_port}/nothing")

    with Peer(wrong) as peer:
        with pytest.raises(Unreachable, match="HTTP 404"):
            peer.send(report_file)
        with pytest.raises(Refused, match="HTTP 404"):
            peer.test()


@pytest.mark.parametrize(
    "url", ["dicom://PACS@127.0.0.1:{port}", "http://127.0.0.1:{port}/dicom-web"]
)
def test_a_closed_port_is_a_temporary_error(report_file: Path, url: str) -> None:
    with Peer(parse_destination("pacs", url.format(port=free_port()))) as peer:
        with pytest.raises(Unreachable, match=r"^pacs .*does not answer") as failure:
            peer.send(report_file)
        assert "\n" not in str(failure.value)
        with pytest.raises(Unreachable, match="does not answer"):
            peer.test()


@pytest.mark.parametrize("url", ["dicom://PACS@pacs.invalid:104", "http://pacs.invalid/dicom-web"])
def test_an_unknown_host_is_a_temporary_error(report_file: Path, url: str) -> None:
    with Peer(parse_destination("pacs", url)) as peer, pytest.raises(Unreachable, match=r"^pacs"):
        peer.send(report_file)


def test_errors_arrive_as_they_were_raised(tmp_path: Path, report_file: Path) -> None:
    with Web(Http(503), Http(413)).running() as destination, Peer(destination) as peer:
        with pytest.raises(Busy, match=r"^web is not available \(HTTP 503\); try again later$"):
            peer.send(report_file)
        with pytest.raises(Refused, match=r"^web refused it \(HTTP 413\); it is too large$"):
            peer.send(report_file)
        with pytest.raises(TooLate, match=r"^nothing was sent to web"):
            peer.send(report_file, not_after=0)
        (tmp_path / "x.dcm").write_bytes(b"x")
        with pytest.raises(Permanent, match=r"x\.dcm is not a readable DICOM file"):
            peer.send(tmp_path / "x.dcm")


def drips_headers(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n")
    while not connection.ended.wait(0.02):
        connection.send(b"X")


@pytest.mark.parametrize("stopped", [False, True])
def test_an_operation_is_killed_at_its_deadline(report_file: Path, *, stopped: bool) -> None:
    with (
        scripted(Connection.reset, drips_headers) as odd,
        Peer(DicomwebDestination("web", f"http://127.0.0.1:{odd.port}")) as peer,
    ):
        with pytest.raises(Unreachable, match="does not answer"):
            peer.test()
        (child,) = children(peer)
        peer.limit_s = 0.5
        if stopped:
            os.kill(child, signal.SIGSTOP)
        with pytest.raises(Unreachable, match=r"^web did not finish within 0\.5 s$"):
            peer.send(report_file)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def children(peer: Peer) -> list[int]:
    return [peer._child.pid] if peer._child.pid else []


def test_credentials_are_in_no_argument_and_no_environment(report_file: Path) -> None:
    with (
        Web(Http(503)).running(username="me", password="secret-word") as destination,
        Peer(destination) as peer,
    ):
        with pytest.raises(Busy):
            peer.send(report_file)
        (child,) = children(peer)
        for name in ("cmdline", "environ"):
            assert b"secret-word" not in Path(f"/proc/{child}/{name}").read_bytes()


def test_one_process_serves_until_it_is_closed() -> None:
    with Peer(DimseDestination("pacs", "127.0.0.1", free_port(), "PACS")) as peer:
        for _ in range(2):
            with pytest.raises(Unreachable):
                peer.test()
            (child,) = children(peer)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_closing_ends_an_operation_in_progress(report_file: Path) -> None:
    connected, errors = Event(), list[Exception]()

    def silent(connection: Connection) -> None:
        connected.set()
        connection.wait()

    def send() -> None:
        try:
            peer.send(report_file)
        except LumbarError as error:
            errors.append(error)

    with scripted(silent) as destination:
        peer = Peer(destination)
        sending = Thread(target=send)
        sending.start()
        assert connected.wait(30)
        peer.close()
        sending.join(30)
    assert [type(error) for error in errors] == [Unreachable]


PARENT = """
import sys
from pathlib import Path
from lumbar.peers import Peer, parse_destination
Peer(parse_destination("pacs", sys.argv[1])).send(Path(sys.argv[2]))
"""


def test_a_killed_parent_leaves_no_process_and_no_connection(report_file: Path) -> None:
    connected, ended = Event(), Event()

    def silent(connection: Connection) -> None:
        connected.set()
        while connection.stream.recv(2**16):
            pass
        ended.set()

    with scripted(silent) as destination:
        url = f"dicom://PACS@127.0.0.1:{destination.port}"
        with subprocess.Popen([sys.executable, "-c", PARENT, url, str(report_file)]) as parent:
            assert connected.wait(30)
            parent.kill()
        assert ended.wait(15)  # well before the 30 s that it would wait for a response


def test_the_settings_import_neither_pydicom_nor_requests() -> None:
    code = "import sys, lumbar.peers; print({'pydicom', 'pynetdicom', 'requests'} & {*sys.modules})"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout == "set()\n"
