"""Hostile peers: each association ends as it should, with no other effect."""

import socket

import pytest

from tests.hostile import wire
from tests.hostile.associations import PEERS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("peer", PEERS, ids=lambda case: case.name)
def test_a_hostile_peer_is_refused_with_its_reason(monitored, peer):
    before = monitored.system.log.stat().st_size
    connection = wire.RawConnection(monitored.port)
    try:
        if peer.after_acceptance is None:
            connection.send(peer.request)
        else:
            connection.associate(peer.request)
            connection.send(*peer.after_acceptance)
        if peer.hangs_up:
            connection.stream.shutdown(socket.SHUT_WR)
        response = connection.status()
        assert response in peer.ends
        if peer.event:  # before closing, which could itself end the association
            monitored.wait_for_event(before, peer.event, peer.reason)
        elif peer.after_acceptance is None and (
            response == "aborted" or str(response).startswith("rejected")
        ):
            monitored.wait_for_event(
                before, "(connection.refused|association.rejected|association.aborted)", ".+"
            )
    finally:
        connection.close()


def test_after_all_inputs_the_system_is_unharmed(monitored):
    monitored.require_unharmed()
