"""A hundred peers that send nothing, or one byte per second: a legitimate C-ECHO is still answered in time."""

import socket
import ssl
import threading
from contextlib import suppress
from time import monotonic

import pytest

from tests.certificates import self_signed
from tests.hostile import wire
from tests.hostile.monitored import MonitoredSystem

pytestmark = [pytest.mark.slow, pytest.mark.serial]

PEERS = 100
DURATION_S = 12.0
WITHIN_S = 2.0  # the bound that the documentation states


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("certificate"), "localhost")


@pytest.fixture(params=["plain", "tls"])
def receiver(request, certificate, tmp_path):
    pem, key = certificate
    tls = {"LUMBAR_TLS_CERTIFICATE": str(pem), "LUMBAR_TLS_KEY": str(key)}
    monitored = MonitoredSystem(tmp_path, tls if request.param == "tls" else {})
    monitored.system.echo_options = ["+tla", "+cf", str(pem)] if request.param == "tls" else []
    monitored.system.start()
    yield monitored.system
    monitored.system.kill()


TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


class SlowPeer(threading.Thread):
    """Connects in one of several ways, then sends nothing or one byte per second; reconnects when disconnected."""

    def __init__(self, port, kind, tls, stop):
        super().__init__(daemon=True)
        self.port, self.kind, self.tls, self.stop = port, kind, tls, stop

    def run(self):
        while not self.stop.is_set():
            with suppress(OSError, AssertionError), self.connected() as stream:
                self.linger(stream)
            self.stop.wait(1)

    def connected(self):
        raw = socket.create_connection(("127.0.0.1", self.port), 10)
        if not (self.tls and "associated" in self.kind):
            return raw
        with raw:  # wrapped, it is detached
            return TRUSTING.wrap_socket(raw)

    def linger(self, stream):
        content = b""
        if self.kind == "dripping":
            content = b"\x16\x03\x01\x02\x00" + bytes(500) if self.tls else wire.associate_rq()
        elif "associated" in self.kind:
            wire.RawConnection(self.port, stream=stream).associate()
            content = wire.echo_rq() if "dripping" in self.kind else b""
        stream.settimeout(1)
        for position in range(10_000):
            stream.sendall(content[position : position + 1])
            with suppress(TimeoutError):
                if not stream.recv(1):
                    return
            if self.stop.is_set():
                return


def test_a_legitimate_echo_is_answered_while_a_hundred_peers_are_slow(receiver):
    stop = threading.Event()
    kinds = ("silent", "dripping", "associated, silent", "associated, dripping")
    peers = [
        SlowPeer(receiver.port, kinds[n % 4], bool(receiver.echo_options), stop)
        for n in range(PEERS)
    ]
    for peer in peers:
        peer.start()
    started_at, durations = monotonic(), []
    try:
        while monotonic() - started_at < DURATION_S:
            sent_at = monotonic()
            assert receiver.answers(), f"not answered, {sent_at - started_at:.1f} s after the first"
            durations.append(monotonic() - sent_at)
    finally:
        stop.set()
        for peer in peers:
            peer.join(15)
    assert max(durations) <= WITHIN_S, (
        f"the slowest of {len(durations)} took {max(durations):.2f} s"
    )
