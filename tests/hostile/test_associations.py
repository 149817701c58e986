"""Hostile peers: each association ends as it should, and nothing else happens."""

import socket

import pytest

from tests.hostile import wire
from tests.hostile.associations import PEERS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("peer", PEERS, ids=lambda one: one.name)
def test_a_hostile_peer_is_refused_by_name(watched, peer):
    before = watched.system.log.stat().st_size
    line = wire.Line(watched.port)
    try:
        if peer.then is None:
            line.send(peer.request)
        else:
            line.associate(peer.request)
            line.send(*peer.then)
        if peer.hangs_up:
            line.stream.shutdown(socket.SHUT_WR)
        answer = line.status()
        assert answer in peer.ends
        if peer.event:  # closed before that, the line could be what ends the association
            watched.wait_for_event(before, peer.event, peer.why)
        elif peer.then is None and (answer == "aborted" or str(answer).startswith("rejected")):
            watched.wait_for_event(
                before, "(connection.refused|association.rejected|association.aborted)", ".+"
            )
    finally:
        line.close()


def test_after_all_of_them_the_system_is_unharmed(watched):
    watched.require_unharmed()
