"""What a peer's C-STORE response means, and files sent over one association."""

from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification

from lumbar.errors import Permanent, Transient
from lumbar.peers import DimseDestination, Sent, dimse
from lumbar.peers.deadline import Deadline
from lumbar.peers.demo_pacs import DemoPacs
from lumbar.peers.dimse import send_files
from lumbar.peers.outcomes import (
    Busy,
    FileUnavailable,
    NotAuthorised,
    NotSent,
    ProcessingFailed,
    Refused,
    TooLate,
    Unintelligible,
    Unreachable,
)
from lumbar.reports.report import Report
from tests.factories.reports import STUDY, minimal_header
from tests.odd_peers import ABORTS, answering, scripted, storing
from tests.peers import Storescp


def send(destination: DimseDestination, file: Path, not_after: float | None = None) -> Sent:
    return dimse.send(destination, Deadline(destination.name, 10, 20), file, not_after)


def data_set(content: bytes) -> bytes:
    """What follows the file meta information, which each archive writes itself."""
    file = BytesIO(content)
    meta = dcmread(BytesIO(content), stop_before_pixels=True).file_meta
    file.seek(132 + 12 + meta.FileMetaInformationGroupLength)
    return file.read()


def image(path: Path, syntax: UID = ImplicitVRLittleEndian) -> Path:
    """A small file. Sending does not decode it, so an encapsulated syntax needs no real image."""
    mr = minimal_header()
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


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (0xA700, Busy, 1),
        (0x0213, Busy, 1),
        (0x0110, ProcessingFailed, 1),
        (0x0124, NotAuthorised, 1),
        (0x0106, Refused, 1),
        (0x0117, Refused, 1),
        (0x0122, Refused, 1),
        (0x0212, Refused, 1),
        (0xA900, Refused, 1),
        (0xC000, ProcessingFailed, 2),
        (0xC211, ProcessingFailed, 2),
        (0x1234, ProcessingFailed, 1),
    ],
)
def test_a_status_decides_whether_to_retry(
    report_file: Path, status: int, error: type[Exception], attempts: int
) -> None:
    stored: list[bytes] = []
    with (
        scripted(storing(status, stored)) as destination,
        pytest.raises(error, match=f"^odd .*{status:04X}"),
    ):
        send(destination, report_file)

    assert len(stored) == attempts


@pytest.mark.parametrize("status", [0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xB123])
def test_a_warning_is_stored(report_file: Path, status: int) -> None:
    stored: list[bytes] = []
    with scripted(storing(status, stored)) as destination:
        sent = send(destination, report_file)

    assert sent.status == f"{status:04X}"
    assert sent.warning
    assert "stored" in sent.warning
    assert not sent.listed
    assert len(stored) == 1


def test_what_fails_says_whether_it_concerns_the_whole_destination() -> None:
    assert {kind.__name__ for kind in NotSent.__subclasses__() if not kind.holds_destination} == {
        "ProcessingFailed",
        "FileUnavailable",
        "TooLate",
    }
    assert all(issubclass(kind, Transient) for kind in NotSent.__subclasses__())


def test_a_duplicate_is_stored_once_the_peer_lists_it(report_file: Path) -> None:
    with answering(0x0111, matches=1) as (destination, _):
        assert send(destination, report_file) == Sent("0111", "it was already stored", listed=True)


def test_a_duplicate_that_the_peer_does_not_list_may_be_listed_later(report_file: Path) -> None:
    with answering(0x0111, matches=0) as (destination, _):
        sent = send(destination, report_file)

    assert sent.status == "0111"
    assert not sent.listed


def test_a_duplicate_is_stored_where_the_peer_cannot_be_asked(report_file: Path) -> None:
    with answering(0x0111) as (destination, _):
        sent = send(destination, report_file)

    assert not sent.listed
    assert "cannot be asked" in (sent.warning or "")


def test_the_success_of_another_instance_is_none_of_this_one(report_file: Path) -> None:
    with (
        scripted(storing(0, e1000=b"1.2.3\0")) as destination,
        pytest.raises(Unintelligible, match="another instance"),
    ):
        send(destination, report_file)


def test_a_pending_status_is_no_end_of_a_c_store(report_file: Path) -> None:
    with (
        scripted(storing(0xFF00)) as destination,
        pytest.raises(ProcessingFailed, match="FF00"),
    ):
        send(destination, report_file)


def test_a_peer_with_implicit_vr_alone_gets_the_same_values(
    report_file: Path, report: Report
) -> None:
    with answering(0, syntaxes=[ImplicitVRLittleEndian]) as (destination, stored):
        assert send(destination, report_file) == Sent("0000")

    (received,) = stored
    assert received.original_encoding == (True, True)
    assert received == dcmread(BytesIO(report.content))


def test_a_peer_that_accepts_no_reports_is_a_permanent_error(report_file: Path) -> None:
    with (
        answering(0, accepts=Verification) as (destination, _),
        pytest.raises(Refused, match="3D SR") as failure,
    ):
        send(destination, report_file)
    assert isinstance(failure.value, Permanent)


def test_a_peer_that_aborts_while_storing_is_a_temporary_error(report_file: Path) -> None:
    with (
        answering(ABORTS) as (destination, stored),
        pytest.raises(Unreachable, match="was lost"),
    ):
        send(destination, report_file)
    assert len(stored) == 1


def test_nothing_is_sent_once_it_is_too_late(report_file: Path) -> None:
    with answering(0) as (destination, stored), pytest.raises(TooLate):
        send(destination, report_file, not_after=0)
    assert stored == []


def test_a_file_that_is_away_or_no_dicom_is_told_apart(tmp_path: Path) -> None:
    damaged = tmp_path / "broken.dcm"
    damaged.write_bytes(b"no DICOM")

    with answering(0) as (destination, _):
        with pytest.raises(FileUnavailable, match=r"^away\.dcm cannot be read"):
            send(destination, tmp_path / "away.dcm")
        with pytest.raises(Permanent, match=r"^broken\.dcm is not a readable DICOM file"):
            send(destination, damaged)


def test_files_of_every_kind_arrive_unchanged_over_one_association(
    tmp_path: Path, report_file: Path
) -> None:
    damaged = tmp_path / "broken.dcm"
    damaged.write_bytes(b"no DICOM")
    big = image(tmp_path / "big.dcm")
    with big.open("ab") as file:  # many fragments
        file.write(b"\xe0\x7f\x10\0\0\0\x10\0" + bytes(range(256)) * 4096)
    images = [image(tmp_path / "plain.dcm"), image(tmp_path / "j2k.dcm", JPEG2000Lossless), big]
    sent = [report_file, *images]
    steps: list[None] = []

    with Storescp(tmp_path) as peer:
        failed = send_files(peer.dimse, [*sent, damaged], lambda: steps.append(None))

    assert [(file.path, file.reason) for file in failed] == [
        (damaged, "broken.dcm is not a readable DICOM file")
    ]
    assert len(steps) == 5
    stored = {data_set(path.read_bytes()) for path in peer.folder.iterdir()}
    assert stored == {data_set(path.read_bytes()) for path in sent}


def test_files_after_an_abort_are_reported_one_by_one(tmp_path: Path) -> None:
    paths = [image(tmp_path / f"{n}.dcm") for n in range(3)]

    with answering(ABORTS, accepts=MRImageStorage) as (destination, stored):
        failed = send_files(destination, paths)

    assert [file.path for file in failed] == paths
    assert len(stored) == 1


def test_one_transfer_syntax_that_is_not_accepted_does_not_stop_the_others(tmp_path: Path) -> None:
    plain, packed = image(tmp_path / "plain.dcm"), image(tmp_path / "j2k.dcm", JPEG2000Lossless)

    with answering(0, accepts=MRImageStorage) as (destination, stored):
        (failed,) = send_files(destination, [packed, plain])

    assert failed.path == packed
    assert "does not accept MR Image Storage in JPEG 2000" in failed.reason
    assert len(stored) == 1


def test_the_demo_pacs_keeps_what_it_receives_and_signals_it(
    tmp_path: Path, report: Report, report_file: Path
) -> None:
    with DemoPacs(tmp_path / "pacs") as pacs:
        destination = DimseDestination("demo", "127.0.0.1", pacs.port, pacs.ae_title)
        dimse.echo(destination, Deadline("demo", 10, 20))
        send(destination, report_file)
        received = pacs.wait_for(
            lambda r: r.sop_instance_uid == report.sop_instance_uid, timeout_s=10
        )
        with pytest.raises(Transient, match="no such instance"):
            pacs.wait_for(lambda r: r.sop_class_uid == MRImageStorage, timeout_s=0)

    assert received.sop_class_uid == Comprehensive3DSRStorage
    assert data_set(received.path.read_bytes()) == data_set(report.content)
    assert list(pacs.folder.iterdir()) == [received.path]
