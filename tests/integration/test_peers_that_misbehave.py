"""Peers that fall silent, drip, break off or send what is not DICOM: each ends with an outcome."""

import struct
from pathlib import Path

import pytest

from lumbar.errors import LumbarError
from lumbar.peers import Sent, association, dimse, find
from lumbar.peers.asking import holds, our_reports
from lumbar.peers.deadline import Deadline
from lumbar.peers.outcomes import Busy, InstanceReference, Refused, Unintelligible, Unreachable
from tests.hostile.wire import item, p_data, pdu
from tests.odd_peers import Connection, Script, answer, response, scripted

REFERENCE = InstanceReference("1.2.1", "1.2.2", "1.2.3")
SHORT = 0.3  # seconds, for what must end by itself
_FIND_RSP = 0x8020


def after_data(*sent: bytes) -> Script:
    """Accepts, takes the message, sends that and falls silent."""

    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_message()
        for content in sent:
            connection.send(content)
        connection.wait()

    return script


def drips(connection: Connection) -> None:
    connection.accept()
    connection.read_message()
    connection.drip(answer(response()) * 100)


def reads_nothing(connection: Connection) -> None:
    connection.accept()
    connection.wait()


def resets(connection: Connection) -> None:
    connection.accept()
    connection.read_message()
    connection.reset()


def instead_of_an_acceptance(content: bytes) -> Script:
    def script(connection: Connection) -> None:
        connection.read_pdu()
        connection.send(content)
        connection.wait()

    return script


def accepting(**changes: object) -> Script:
    def script(connection: Connection) -> None:
        connection.accept(**changes)
        connection.wait()

    return script


ABORT = pdu(7, bytes(4))
SILENT = "does not answer|did not respond in time|did not finish within"
SLOW = r"did not finish within 0\.9 s"
LOST = "was lost|does not answer|aborted"
CASES: dict[str, tuple[Script, type[LumbarError], str]] = {
    "silent at once": (Connection.wait, Unreachable, SILENT),
    "silent after accepting": (reads_nothing, Unreachable, SILENT),
    "silent after the data": (after_data(), Unreachable, SILENT),
    "three bytes of a PDU": (after_data(b"\4\0\0"), Unreachable, SILENT),
    "half a PDU": (after_data(answer(response())[:40]), Unreachable, SILENT),
    "a byte now and then": (drips, Unreachable, SLOW),
    "4 GiB claimed": (
        after_data(struct.pack(">BBL", 4, 0, 2**32 - 1)),
        Unintelligible,
        "not DICOM",
    ),
    "endless fragments": (
        after_data(*[p_data(1, bytes(2**16), command=False, last=False)] * 40),
        Unintelligible,
        "longer than any response",
    ),
    "reset": (resets, Unreachable, LOST),
    "aborted after the data": (after_data(ABORT), Unreachable, "was lost"),
    "aborted at once": (instead_of_an_acceptance(ABORT), Unreachable, "aborted the association"),
    "HTTP": (instead_of_an_acceptance(b"HTTP/1.1 400 Bad\r\n\r\n"), Unintelligible, "not DICOM"),
    "not a PDU": (after_data(b"\x09\0\0\0\0\4abcd"), Unintelligible, "not DICOM"),
    "no values in the PDU": (after_data(pdu(4, b"\0\0\0\1\1\3")), Unintelligible, "not DICOM"),
    "a value longer than its PDU": (
        after_data(pdu(4, b"\0\0\1\0\1\3")),
        Unintelligible,
        "not DICOM",
    ),
    "a data set without command": (
        after_data(p_data(1, b"ab", command=False)),
        Unintelligible,
        "not DICOM",
    ),
    "a command that is none": (
        after_data(p_data(1, b"\0\0\0\1\xff\xff\xff\xff", command=True)),
        Unintelligible,
        "not DICOM",
    ),
    "another message": (after_data(answer(response(message=7))), Unintelligible, "not a response"),
    "another command": (
        after_data(answer(response(field=0x8020))),
        Unintelligible,
        "not a response",
    ),
    "a request": (after_data(answer(response(field=0x0001))), Unintelligible, "not a response"),
    "no status": (after_data(answer(response(status=None))), Unintelligible, "not a response"),
    "a status of four bytes": (
        after_data(answer(response() | {0x0900: bytes(4)})),
        Unintelligible,
        "not a response",
    ),
    "nothing in the acceptance": (
        instead_of_an_acceptance(pdu(2, b"")),
        LumbarError,
        "accepts none",
    ),
    "half an item": (
        instead_of_an_acceptance(pdu(2, bytes(68) + b"\x21\0\0")),
        Unintelligible,
        "not DICOM",
    ),
    "a sub-item longer than its item": (
        accepting(user=item(0x50, struct.pack(">BBH", 0x51, 0, 99))),
        Unintelligible,
        "not DICOM",
    ),
    "PDUs of one byte": (accepting(longest=1), Unintelligible, "not DICOM"),
    "a syntax nobody proposed": (accepting(syntax="1.2.3"), LumbarError, "accepts none"),
    "half a rejection": (instead_of_an_acceptance(pdu(3, b"\0\1")), Unintelligible, "not DICOM"),
}


@pytest.fixture(autouse=True)
def quick_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "RELEASE_S", 0.2)


def times(case: str) -> tuple[float, float]:
    """Seconds for each wait and for all: short only where the peer makes us wait."""
    _, _, message = CASES[case]
    return (SHORT, 3 * SHORT) if message in (SILENT, SLOW) else (20, 40)


@pytest.mark.parametrize("case", CASES)
def test_sending_ends_with_an_error_that_names_the_peer(case: str, report_file: Path) -> None:
    script, error, message = CASES[case]

    with (
        scripted(script) as destination,
        pytest.raises(error, match=f"odd.*({message})") as failure,
    ):
        dimse.send(destination, Deadline("odd", *times(case)), report_file)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("case", CASES)
def test_files_end_likewise_one_by_one(case: str, report_file: Path) -> None:
    timeout_s, limit_s = times(case)
    with scripted(CASES[case][0]) as destination:
        try:
            failed = dimse.send_files(
                destination, [report_file] * 2, timeout_s=timeout_s, limit_s=limit_s
            )
        except (Unreachable, Unintelligible, Refused):  # no association at all
            return
    assert [file.path for file in failed] == [report_file] * 2
    assert all("odd" in file.reason for file in failed)


@pytest.mark.parametrize("case", CASES)
def test_a_c_echo_ends_likewise(case: str) -> None:
    with scripted(CASES[case][0]) as destination, pytest.raises(LumbarError, match="odd"):
        dimse.echo(destination, Deadline("odd", *times(case)))


@pytest.mark.parametrize(
    "end", [Connection.wait, Connection.reset, lambda connection: connection.drip(bytes(999))]
)
def test_what_follows_the_response_changes_nothing(end: Script, report_file: Path) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_message()
        connection.send(answer(response()))
        connection.read_pdu()  # A-RELEASE-RQ
        end(connection)

    with scripted(script) as destination:
        assert dimse.send(destination, Deadline("odd", 5, 10), report_file) == Sent("0000")


def test_a_peer_that_takes_short_pdus_gets_everything(report_file: Path) -> None:
    received = bytearray()

    def script(connection: Connection) -> None:
        connection.accept(longest=64)
        while True:
            kind, content = connection.read_pdu()
            assert kind == 4
            assert len(content) <= 64
            received.extend(b"" if content[5] & 1 else content[6:])
            if content[5] == 2:
                break
        connection.send(answer(response()))
        connection.release()

    with scripted(script) as destination:
        assert dimse.send(destination, Deadline("odd", 10, 20), report_file) == Sent("0000")
    assert report_file.read_bytes().endswith(received)
    assert received


def test_a_rejection_is_explained(report_file: Path) -> None:
    for reason, message in ((b"\1\3", "calling AE title not recognised.*check"), (b"\3\1", "cong")):
        with (
            scripted(instead_of_an_acceptance(pdu(3, b"\0\1" + reason))) as destination,
            pytest.raises(Unreachable, match=message),
        ):
            dimse.send(destination, Deadline("odd", 5, 10), report_file)


def finding(*sent: bytes, again: int = 1, pause_s: float = 0) -> Script:
    """Takes a query, and sends that so many times."""

    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_message()
        for _ in range(again):
            for content in sent:
                connection.send(content)
            connection.ended.wait(pause_s)
        connection.wait()

    return script


def match(**values: str) -> bytes:
    """A pending response with an identifier of UIDs, in Implicit VR."""
    tags = {"study": (0x20, 0x0D), "series": (0x20, 0x0E), "instance": (0x08, 0x18)}
    elements = sorted((tags[name], value.encode()) for name, value in values.items())
    content = b"".join(
        struct.pack("<HHL", *tag, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
        for tag, value in elements
    )
    return pending(content)


def pending(identifier: bytes) -> bytes:
    command = response(field=_FIND_RSP, status=0xFF00) | {0x0800: b"\0\0"}
    return answer(command) + p_data(1, identifier, command=False)


def final(status: int) -> bytes:
    return answer(response(field=_FIND_RSP, status=status))


OURS, OTHER = match(instance=REFERENCE.sop_instance_uid), match(instance="9.9")


@pytest.mark.parametrize(
    ("script", "held"),
    [
        (finding(OURS, final(0)), True),
        (finding(OTHER, OURS, final(0)), True),
        (finding(OURS, final(0xC001)), True),
        (finding(final(0)), False),
        (finding(OTHER, final(0)), None),  # it ignores the key, and may list only a part
        (finding(match(study="1.2.1"), final(0)), None),  # it does not return the key
        (finding(pending(b"\x08\0\x18\0\xff\xff\xff\xff1"), final(0)), None),
        (finding(pending(b"\x08\0\x18\0\4\0\0\0\xff\xfe\xfd\xfc"), final(0)), None),
        (finding(final(0xC001)), None),
        (finding(final(0xA900)), None),
        (finding(final(0x0122)), None),
        (finding(final(0x0124)), None),
        (finding(final(0xFE00)), None),
        (finding(answer(response())), None),  # a C-STORE's response
        (finding(OTHER, again=10_000), None),  # never ends, but needs not be read on
        (resets, None),  # as Orthanc does where it does not know who asks
        (after_data(ABORT), None),
        (accepting(syntax="1.2.3"), None),
        (instead_of_an_acceptance(pdu(3, b"\0\1\1\1")), None),
    ],
)
def test_a_peer_holds_what_it_lists(script: Script, held: bool | None) -> None:
    with scripted(script) as destination:
        assert holds(find.search_of(destination, Deadline("odd", 10, 30)), REFERENCE) is held


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (finding(final(0xA700)), Busy, "A700"),
        (finding(OTHER, again=10_000, pause_s=0.02), Unreachable, "did not finish within"),
        (finding(OTHER), Unreachable, "did not respond in time"),
        (Connection.wait, Unreachable, "does not answer"),
        (instead_of_an_acceptance(pdu(3, b"\0\1\1\7")), Unreachable, "called AE title"),
        (instead_of_an_acceptance(pdu(3, b"\0\2\3\1")), Unreachable, "congestion"),
    ],
)
def test_a_peer_that_cannot_answer_now_is_asked_again(
    script: Script, error: type[LumbarError], message: str
) -> None:
    with scripted(script) as destination, pytest.raises(error, match=message):
        holds(find.search_of(destination, Deadline("odd", SHORT, 3 * SHORT)), REFERENCE)


def test_a_peer_that_lists_a_million_series_says_nothing() -> None:
    with scripted(finding(match(study="1.2.1", series="1.2.2"), again=10_000)) as destination:
        assert our_reports(find.search_of(destination, Deadline("odd", 10, 30)), "1.2.1") is None
