"""Receivers that admit known peers only, by AE title, address and TLS; each refusal has its reason and is audited."""

import socket
import ssl
import subprocess
import warnings
from contextlib import closing, suppress

import pytest
from sqlalchemy import select

from db.models import AuditEvent
from tests.hostile import wire
from tests.hostile.monitored import MonitoredSystem
from tests.system import closing_database, wait_until

pytestmark = pytest.mark.slow

NEW = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
HANDSHAKE = "TLS handshake failed"
NAMES = {
    "an unknown calling AE title": b"STRANGER",
    "a known one in small letters": b"scanner",
    "a known one with an additional letter": b"SCANNER2",
    "a known one with a NUL and more": b"SCANNER\0S",
    "a known one with a line break": b"SCANNER\n",
    "two known ones": b"SCANNER,PACS",
    "a blank one": b"",
    "one of NULs": bytes(16),
    "one that is not ASCII": b"SCANNER\xa0",
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, ``server`` and ``client`` certificates of it, and ``untrusted``, which is self-signed."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(arguments, cwd=folder, check=True, capture_output=True)

    for name in ("ca", "untrusted"):
        openssl(
            *NEW, "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"
        )
    for name in ("server", "client"):
        openssl(*NEW, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = (
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            f"{name}.pem",
        )
        openssl("openssl", "x509", "-req", "-in", f"{name}.csr", *signed)
    return folder


@pytest.fixture(scope="module")
def restricted(tmp_path_factory):
    """A receiver with two known AE titles and one known address."""
    settings = {"LUMBAR_KNOWN_AES": "SCANNER,PACS", "LUMBAR_KNOWN_ADDRESSES": "127.0.0.1/32"}
    yield from started(tmp_path_factory, settings, ["-aet", "SCANNER"])


@pytest.fixture(scope="module")
def mutual(tmp_path_factory, certificates):
    """A receiver with TLS that accepts clients of its CA only."""
    files = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    settings = {
        f"LUMBAR_TLS_{name.upper()}": str(certificates / file) for name, file in files.items()
    }
    key_and_certificate = [str(certificates / "client.key"), str(certificates / "client.pem")]
    options = ["+tls", *key_and_certificate, "+cf", str(certificates / "ca.pem")]
    yield from started(tmp_path_factory, settings, options)


def started(tmp_path_factory, settings, echo_options):
    monitored = MonitoredSystem(tmp_path_factory.mktemp("receivers"), settings)
    monitored.system.echo_options = echo_options
    try:
        monitored.system.start()
        yield monitored
    finally:
        monitored.system.kill()


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_sender_is_rejected_and_audited(restricted, name):
    before = restricted.system.log.stat().st_size
    with closing(wire.RawConnection(restricted.port)) as connection:
        connection.send(wire.associate_rq(calling=NAMES[name]))
        assert connection.ending() == "rejected 1.1.3"
    restricted.wait_for_event(before, "association.rejected", "calling AE title not recognised")
    # one peer's rejections for one reason make one row a minute
    wait_until(
        lambda: "calling AE title not recognised" in audited(restricted), 10, restricted.system.tail
    )


def test_an_unknown_address_is_refused_and_audited(restricted):
    before = restricted.system.log.stat().st_size
    foreign = socket.create_connection(
        ("127.0.0.1", restricted.port), 10, source_address=("127.0.0.2", 0)
    )
    with closing(wire.RawConnection(restricted.port, stream=foreign)) as connection:
        connection.send(wire.associate_rq(calling=b"SCANNER"))
        assert connection.ending() in ("aborted", "closed")
    restricted.wait_for_event(before, "connection.refused", "address not allowed")
    wait_until(lambda: "address not allowed" in audited(restricted), 10, restricted.system.tail)


def test_a_known_sender_is_still_served(restricted):
    assert restricted.system.answers()


def client(version=None, certificate=None, folder=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # obsolete versions are what is tested
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    return context


@pytest.mark.parametrize(
    ("version", "certificate"),
    [
        (ssl.TLSVersion.TLSv1, "client"),
        (ssl.TLSVersion.TLSv1_1, "client"),
        (None, None),
        (None, "untrusted"),
        (ssl.TLSVersion.TLSv1_2, "untrusted"),
    ],
    ids=[
        "TLS 1.0",
        "TLS 1.1",
        "no certificate",
        "an untrusted certificate",
        "an untrusted certificate, TLS 1.2",
    ],
)
def test_an_unacceptable_tls_client_is_refused_and_audited(
    mutual, certificates, version, certificate
):
    before = mutual.system.log.stat().st_size
    raw = socket.create_connection(("127.0.0.1", mutual.port), 10)
    ending = "closed"
    with (
        raw,
        suppress(ssl.SSLError, ConnectionError),
        client(version, certificate, certificates).wrap_socket(raw) as tls,
    ):
        connection = wire.RawConnection(mutual.port, stream=tls)
        connection.send(wire.associate_rq())
        ending = connection.ending()  # with TLS 1.3, a client learns of it only here
    assert ending in ("closed", "aborted")
    mutual.wait_for_event(before, "connection.refused", HANDSHAKE)
    wait_until(lambda: HANDSHAKE in audited(mutual), 10, mutual.system.tail)


@pytest.mark.parametrize(
    "content",
    [
        wire.associate_rq(),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(2**20),
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x00\x02",
    ],
    ids=["plain DICOM", "HTTP", "zeros", "half a ClientHello", "SSL 2"],
)
def test_anything_but_tls_is_refused_at_the_tls_port(mutual, content):
    before = mutual.system.log.stat().st_size
    with (
        closing(wire.RawConnection(mutual.port)) as connection,
        suppress(OSError),
    ):  # the receiver may have closed it already
        connection.send(content)
        connection.stream.shutdown(socket.SHUT_WR)
        assert connection.stream.recv(1)[:1] in (
            b"",
            b"\x15",
            b"\x07",
        )  # nothing, a TLS alert, an abort
    mutual.wait_for_event(before, "connection.refused", HANDSHAKE)


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"]
)
def test_a_client_of_the_ca_is_served(mutual, certificates, version):
    raw = socket.create_connection(("127.0.0.1", mutual.port), 10)
    context = client(None, "client", certificates)
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(raw) as tls:
        connection = wire.RawConnection(mutual.port, stream=tls)
        connection.associate()
        connection.send(wire.echo_rq())
        assert connection.status() == 0x0000


@pytest.mark.parametrize("receiver", ["restricted", "mutual"])
def test_after_all_clients_the_receiver_is_unharmed(request, receiver):
    monitored = request.getfixturevalue(receiver)
    assert monitored.system.answers()
    monitored.require_a_clean_log()
    monitored.require_nothing_outside_the_store()


def audited(monitored):
    """The reasons for refusals in the audit trail."""
    with closing_database(monitored.system.database_url) as database, database.reading() as session:
        return {event.detail.get("why") for event in session.scalars(select(AuditEvent))}
