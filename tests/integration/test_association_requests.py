"""Requests and messages that are not as they should be; holds ``docs/what-is-accepted.md``.

Each line of its section "Association requests" has cases, each of which is tried over the wire.
Where the association is accepted, an image must arrive on it.
"""

import random
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from struct import unpack, unpack_from
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from structlog.testing import capture_logs

from db.models import Instance, Patient
from db.registrar import Registrar
from db.registration import _read
from tests.hostile import wire
from tests.hostile.datasets import encoded, uid_of
from tests.hostile.mutations import mutated
from tests.hostile.wire import ECHO, IMAGE, RawConnection, associate_rq
from tests.integration.association_cases import NO_NUMBER, REPEATED, REQUESTS, Case
from tests.integration.message_cases import MESSAGES
from tests.integration.test_receiver import listening
from tests.system import wait_until

# None of this depends on the kind of database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

PAGE = Path(__file__).parent.parent.parent / "docs" / "what-is-accepted.md"
HEADING = "## Association requests"
COLUMNS = ["what the peer sends", "what becomes of it", "source"]
RESULTS = (
    "acceptance",
    "user rejection",
    "provider rejection",
    "abstract syntax not supported",
    "transfer syntaxes not supported",
)
NUMBERS = count(1)


def rows() -> dict[str, str]:
    """What becomes of what, by the section of the page."""
    section = PAGE.read_text().split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]
    assert lines.count(COLUMNS) == 2
    return {says: outcome for says, outcome, _ in lines if says != COLUMNS[0]}


ROWS = rows()


class Line(RawConnection):
    """A connection that reads acceptances and fragmented answers."""

    def answer(self, limit: int) -> int | str:
        """The status of the next response, in PDUs no longer than the limit, or an ending."""
        command = b""
        while True:
            kind, content = self.read()
            if kind != wire.P_DATA:
                return wire.described(kind, content)
            assert not limit or len(content) <= max(limit, 8)
            length, _, control = unpack_from(">LBB", content)
            assert length == len(content) - 4
            command += content[6:]
            if control == 3:
                return int(unpack_from("<H", command, command.find(wire.STATUS) + 8)[0])
            assert control == 1
            assert limit, "in fragments without need"


def results_of(acceptance: bytes) -> dict[int, int]:
    """The results of an A-ASSOCIATE-AC's contexts by their numbers."""
    results: dict[int, int] = {}
    for kind, value in items_of(acceptance[68:]):
        if kind == 0x21:
            assert [sub_kind for sub_kind, _ in items_of(value[4:])] == [0x40]  # PS3.8 9.3.3.2
            assert value[0] not in results
            results[value[0]] = value[2]
    return results


def items_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    while content:
        kind, length = content[0], unpack(">H", content[2:4])[0]
        yield kind, content[4 : 4 + length]
        content = content[4 + length :]


def variants(rows: Mapping[str, Sequence[Case]]) -> list[Any]:
    return [
        pytest.param(says, case, id=f"{says}-{n}")
        for says, cases in rows.items()
        for n, case in enumerate(cases)
    ]


def sources(site) -> list[str]:
    return [_read(path)[1] for path in site.store.root.glob("arrived/*/*.dcm")]


def refused(logged) -> str:
    """Why a connection was refused, once that is logged."""
    names = ("connection.refused", "association.rejected", "association.aborted")

    def reasons():
        return [entry for entry in logged if entry["event"] in names]

    wait_until(lambda: bool(reasons()), 10, lambda: str(logged))
    (entry,) = reasons()
    assert entry["peer"] == "127.0.0.1"
    assert entry["calling"].isascii()
    assert entry["calling"].isprintable()
    return str(entry["why"])


def outcome_of_request(site, port: int, case: Case, logged) -> str:
    """In the words of the page."""
    with closing(Line(port)) as line:
        line.send(case.request)
        kind, content = line.read()
        if kind != wire.ASSOCIATE_AC:
            return f"{wire.described(kind, content).split()[0]}, {refused(logged)}"
        assert content[4:68] == case.request[10:74]  # PS3.8 table 9-17: repeated as they came
        results = results_of(content)
        assert [results.pop(number) for number in (ECHO, IMAGE)] == [0, 0]
        line.send(*an_image())
        assert line.answer(case.limit) == 0x0000
        line.send(wire.echo_rq())
        assert line.answer(case.limit) == 0x0000
    return "; ".join(["accepted", *remarks(site, case, results)])


def remarks(site, case: Case, results: Mapping[int, int]) -> Iterator[str]:
    """What else the page says of an accepted request; ``results`` of the contexts in question."""
    (source,) = sources(site)
    if not source:
        yield "its images have no source"
    else:
        assert source == "HOSTILE"
    if case.limit:
        yield "answers in fragments"
    if case.odd == REPEATED:
        yield "the first counts"
    if case.odd == NO_NUMBER:
        assert not results
        yield "that context: no answer"
    if len(results) == 1:
        yield f"that context: {RESULTS[results.popitem()[1]]}"
    assert set(results.values()) <= {RESULTS.index("abstract syntax not supported")}


def an_image() -> list[bytes]:
    uid = uid_of(f"odd {next(NUMBERS)}")
    return list(wire.store_rq(uid, encoded(uid)))


def outcome_of_messages(site, port: int, case: Case, logged) -> str:
    uid = uid_of(f"odd {next(NUMBERS)}")
    with closing(Line(port)) as line:
        line.associate(case.request)
        line.send(*case.messages(uid, encoded(uid)))
        answer = line.answer(0)
        if answer == "aborted":
            return f"aborted, {refused(logged)}"
        if answer == "released":
            assert sources(site) == []
            return "released"
        assert answer == 0x0000
        line.send(wire.echo_rq())  # the association goes on
        assert line.answer(0) == 0x0000
    return "stored" if sources(site) == ["HOSTILE"] else "answered"


def odd_events(logged) -> list[str]:
    entries = [entry for entry in logged if entry["event"] == "association.odd"]
    for entry in entries:
        assert entry["peer"] == "127.0.0.1"
        assert len(entry["calling"]) <= 64
        assert entry["calling"].isascii()
        assert entry["calling"].isprintable()
    return [entry["why"] for entry in entries]


@pytest.mark.parametrize(("says", "case"), variants(REQUESTS))
def test_each_line_about_requests_is_what_the_receiver_does(site, says, case):
    with listening(site, known_aes=case.known_aes) as running, capture_logs() as logged:
        assert outcome_of_request(site, running.port, case, logged) == ROWS[says]
    events = odd_events(logged)
    assert events.count(case.odd) == 1 if case.odd else not events
    assert not [entry for entry in logged if entry["event"] == "receiver.fault"]


@pytest.mark.parametrize(("says", "case"), variants(MESSAGES))
def test_each_line_about_messages_is_what_the_receiver_does(site, says, case):
    with listening(site) as running, capture_logs() as logged:
        assert outcome_of_messages(site, running.port, case, logged) == ROWS[says]
    events = odd_events(logged)
    assert not case.odd or events.count(case.odd) == 1
    assert not [entry for entry in logged if entry["event"] == "receiver.fault"]


def test_every_line_of_the_page_has_its_cases_and_the_reverse(site):
    assert list(ROWS) == [*REQUESTS, *MESSAGES]


def test_images_without_a_source_are_one_patients_only_within_their_study(site):
    """A blank AE title issues no patient identifiers. UNKNOWN is a title like any other."""
    uids = [uid_of(f"of no source {n}") for n in range(5)]
    titles = (b"", b"MR\\1", b"\0", b"UNKNOWN", b"UNKNOWN")
    with listening(site) as running:
        for calling, uid in zip(titles, uids, strict=True):
            with closing(Line(running.port)) as line:
                line.associate(associate_rq(calling=calling))
                line.send(*wire.store_rq(uid, encoded(uid)))  # of the same PatientID
                assert line.answer(0) == 0x0000
    while Registrar(site).register_arrived():
        pass
    with site.database.reading() as session:
        issuers = session.scalars(select(Patient.issuer))
        sources = session.scalars(select(Instance.source))
        assert sorted(issuers) == sorted([*(f"{uid.decode()}.9" for uid in uids[:3]), "UNKNOWN"])
        assert sorted(sources) == ["", "", "", "UNKNOWN", "UNKNOWN"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_no_change_of_a_valid_request_harms_the_receiver(running, seed):
    rng = random.Random(seed)
    request = mutated(associate_rq(), [associate_rq(), wire.echo_rq()], rng)
    with closing(Line(running.port)) as line:
        line.send(request, *an_image())
        with suppress(OSError):  # the receiver has closed it already
            line.stream.shutdown(socket.SHUT_WR)
        while line.ending() != "closed":
            pass
    require_in_service(running.port)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_unknown_items_anywhere_in_a_request_change_nothing(running, data):
    with closing(Line(running.port)) as line:
        line.send(associate_rq())
        expected = line.read()
    with closing(Line(running.port)) as line:
        line.send(with_unknown_items(associate_rq(), data.draw))
        assert line.read() == expected
        line.send(*an_image())
        assert line.answer(0) == 0x0000


@pytest.fixture
def running(site):
    with capture_logs() as logged, listening(site) as started:
        yield started
    assert not [entry for entry in logged if entry["event"] == "receiver.fault"]


def require_in_service(port: int) -> None:
    with closing(Line(port)) as line:
        line.associate()
        line.send(*an_image())
        assert line.answer(0) == 0x0000


def with_unknown_items(request: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """The request with items and sub-items of unknown types between its own."""

    def between(content: bytes, known: Collection[int]) -> bytes:
        kinds = st.integers(0, 255).filter(lambda kind: kind not in known)
        unknown = st.lists(st.tuples(kinds, st.binary(max_size=20)), max_size=2)
        parts = b""
        for kind, value in items_of(content):
            parts += b"".join(wire.item(*stranger) for stranger in draw(unknown))
            if kind == 0x20:
                value = value[:4] + between(value[4:], (0x30, 0x40))
            elif kind == 0x50:
                value = between(value, range(0x51, 0x59))
            parts += wire.item(kind, value)
        return parts + b"".join(wire.item(*stranger) for stranger in draw(unknown))

    return wire.pdu(1, request[6:74] + between(request[74:], (0x10, 0x20, 0x50)))
