"""Which association makes room for a new one: never that of a lone sender that is storing."""

import socket
from time import monotonic

import pytest

from scp import admission
from scp.admission import Admission, Connection

SLOTS = 4
FLOOD, SCANNER = "10.0.0.66", "10.0.0.1"


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(admission, "WAIT_S", 0.0)


@pytest.fixture
def admitting():
    return Admission(SLOTS, ())


def connected(admitting, peer):
    with socket.socket() as unconnected:  # that it can be shut down is all that matters here
        connection = Connection(unconnected, peer)
    admitting.admit(connection)
    return connection


def associated(admitting, peer, *, age_s=0.0):
    """A new association, opened so long ago, whose peer has just sent something."""
    connection = connected(admitting, peer)
    assert admitting.associate(connection)
    connection.opened_at -= age_s
    connection.end_message()
    return connection


def test_a_scanner_gets_in_whatever_one_address_echoes(admitting):
    echoing = [associated(admitting, FLOOD) for _ in range(SLOTS)]

    scanner = associated(admitting, SCANNER)

    assert [one.closed for one in echoing] == [True, False, False, False]
    scanner.note_stored()
    for one in echoing:
        one.opened_at -= 60
    for _ in range(2 * SLOTS):
        associated(admitting, FLOOD, age_s=60)
    assert not scanner.closed


def test_a_scanner_gets_in_behind_the_address_of_a_flood(admitting):
    for _ in range(SLOTS):
        associated(admitting, FLOOD, age_s=60)

    scanner = associated(admitting, FLOOD)
    scanner.note_stored()

    for _ in range(2 * SLOTS):
        associated(admitting, FLOOD, age_s=60)
    assert not scanner.closed


def test_fragments_now_and_then_are_no_use(admitting):
    slow = [associated(admitting, FLOOD, age_s=admission.IN_MESSAGE_S) for _ in range(SLOTS)]
    for one in slow:
        one.begin_message()

    associated(admitting, FLOOD)

    assert [one.closed for one in slow] == [True, False, False, False]


def test_a_lone_sender_that_pauses_between_instances_is_left_alone(admitting):
    scanner = associated(admitting, SCANNER)
    scanner.note_stored()
    scanner.last_pdu_at -= admission.IDLE_S + 1
    for _ in range(SLOTS - 1):
        associated(admitting, FLOOD).note_stored()

    assert not admitting.associate(connected(admitting, FLOOD))
    assert not scanner.closed

    scanner.stored_at = monotonic() - admission.STORING_S
    assert admitting.associate(connected(admitting, FLOOD))
    assert scanner.closed


def test_addresses_of_one_ipv6_network_count_as_one(admitting):
    scanner = associated(admitting, "2001:db8:1::1")
    flood = [associated(admitting, f"2001:db8:2::{n}") for n in range(1, SLOTS)]

    associated(admitting, "2001:db8:3::1")

    assert not scanner.closed
    assert [one.closed for one in flood] == [True, False, False]
