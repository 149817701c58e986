"""Receivers that do not let everybody in: by AE title, by address, by TLS; each refusal by name, and audited."""

import socket
import ssl
import subprocess
import warnings
from contextlib import closing, suppress

import pytest
from sqlalchemy import select

from db.models import AuditEvent
from tests.hostile import wire
from tests.hostile.watched import Watched
from tests.system import closing_database, wait_until

pytestmark = pytest.mark.slow

NEW = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
HANDSHAKE = "TLS handshake failed"
NAMES = {
    "a calling AE title that is not known": (b"STRANGER", "rejected 1.1.3"),
    "a known one in small letters": (b"scanner", "rejected 1.1.3"),
    "a known one with a letter more": (b"SCANNER2", "rejected 1.1.3"),
    "a known one with a NUL": (b"SCANNER\0", "rejected 1.1.3"),
    "two known ones": (b"SCANNER,PACS", "rejected 1.1.3"),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority ``ca``, ``server`` and ``client`` of it, and ``stranger``, which signed itself."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(arguments, cwd=folder, check=True, capture_output=True)

    for own in ("ca", "stranger"):
        openssl(*NEW, "-x509", "-subj", f"/CN={own}", "-keyout", f"{own}.key", "-out", f"{own}.pem")
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
def choosy(tmp_path_factory):
    """A receiver that knows two AE titles, and this address only."""
    settings = {"LUMBAR_KNOWN_AES": "SCANNER,PACS", "LUMBAR_KNOWN_ADDRESSES": "127.0.0.1/32"}
    yield from started(tmp_path_factory, settings, ["-aet", "SCANNER"])


@pytest.fixture(scope="module")
def mutual(tmp_path_factory, certificates):
    """A receiver that speaks TLS, with clients of its authority only."""
    of = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    settings = {f"LUMBAR_TLS_{name.upper()}": str(certificates / file) for name, file in of.items()}
    mine = [str(certificates / "client.key"), str(certificates / "client.pem")]
    options = ["+tls", *mine, "+cf", str(certificates / "ca.pem")]
    yield from started(tmp_path_factory, settings, options)


def started(tmp_path_factory, settings, echo_options):
    watched = Watched(tmp_path_factory.mktemp("doors"), settings)
    watched.system.echo_options = echo_options
    try:
        watched.system.start()
        yield watched
    finally:
        watched.system.kill()


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_sender_is_rejected_and_audited(choosy, name):
    title, ending = NAMES[name]
    before = choosy.system.log.stat().st_size
    with closing(wire.Line(choosy.port)) as line:
        line.send(wire.associate_rq(calling=title))
        assert line.ending() in (ending, "aborted")
    choosy.wait_for_event(
        before, "association.rejected|connection.refused", "calling AE .*|.*cannot be decoded"
    )
    # one peer's rejections for one reason make one row a minute
    wait_until(lambda: "calling AE title not recognised" in audited(choosy), 10, choosy.system.tail)


def test_a_foreign_address_is_not_heard_and_audited(choosy):
    before = choosy.system.log.stat().st_size
    foreign = socket.create_connection(
        ("127.0.0.1", choosy.port), 10, source_address=("127.0.0.2", 0)
    )
    with closing(wire.Line(choosy.port, stream=foreign)) as line:
        line.send(wire.associate_rq(calling=b"SCANNER"))
        assert line.ending() in ("aborted", "closed")
    choosy.wait_for_event(before, "connection.refused", "address not allowed")
    wait_until(lambda: "address not allowed" in audited(choosy), 10, choosy.system.tail)


def test_a_known_sender_is_still_served(choosy):
    assert choosy.system.answers()


def client(version=None, certificate=None, folder=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that old versions are no good is the point
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
        (None, "stranger"),
        (ssl.TLSVersion.TLSv1_2, "stranger"),
    ],
    ids=[
        "TLS 1.0",
        "TLS 1.1",
        "no certificate",
        "a stranger's certificate",
        "a stranger's certificate, TLS 1.2",
    ],
)
def test_a_tls_client_that_may_not_come_in_is_refused_and_audited(
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
        line = wire.Line(mutual.port, stream=tls)
        line.send(wire.associate_rq())
        ending = line.ending()  # TLS 1.3 tells a client only now
    assert ending in ("closed", "aborted")
    mutual.wait_for_event(before, "connection.refused", HANDSHAKE)
    wait_until(lambda: HANDSHAKE in audited(mutual), 10, mutual.system.tail)


@pytest.mark.parametrize(
    "said",
    [
        wire.associate_rq(),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(2**20),
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x00\x02",
    ],
    ids=["plain DICOM", "HTTP", "zeros", "half a ClientHello", "SSL 2"],
)
def test_what_is_no_tls_is_refused_at_the_tls_port(mutual, said):
    before = mutual.system.log.stat().st_size
    with closing(wire.Line(mutual.port)) as line, suppress(OSError):  # it may have hung up already
        line.send(said)
        line.stream.shutdown(socket.SHUT_WR)
        assert line.stream.recv(1)[:1] in (b"", b"\x15", b"\x07")  # nothing, a TLS alert, an abort
    mutual.wait_for_event(before, "connection.refused", HANDSHAKE)


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"]
)
def test_a_client_of_the_authority_is_served(mutual, certificates, version):
    raw = socket.create_connection(("127.0.0.1", mutual.port), 10)
    context = client(None, "client", certificates)
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(raw) as tls:
        line = wire.Line(mutual.port, stream=tls)
        line.associate()
        line.send(wire.echo_rq())
        assert line.status() == 0x0000


@pytest.mark.parametrize("door", ["choosy", "mutual"])
def test_after_all_of_them_the_receiver_is_unharmed(request, door):
    watched = request.getfixturevalue(door)
    assert watched.system.answers()
    watched.require_a_clean_log()
    watched.require_nothing_outside_the_store()


def audited(watched):
    """Why somebody was refused, as the audit trail has it."""
    with closing_database(watched.system.database_url) as database, database.reading() as session:
        return {event.detail.get("why") for event in session.scalars(select(AuditEvent))}
