"""How the receiver treats peers that are not allowed, too slow, too large or too many."""

import socket
import ssl
import subprocess
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, suppress
from threading import Event
from time import monotonic

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import Verification
from sqlalchemy import select
from structlog.testing import capture_logs

from db.models import AuditEvent
from lumbar.audit_messages import Outcome
from lumbar.errors import WrongSetting
from lumbar.settings import Settings
from scp import admission
from scp.admission import IDLE_S, MAX_PENDING
from scp.connection_log import FIRST
from scp.pdu_stream import MAX_PDU_ACCEPTED
from scp.receiver import Receiver
from tests.factories.instances import make_slice
from tests.hostile import wire
from tests.pynetdicom_senders import keep_responses
from tests.system import wait_until


@contextmanager
def listening(site, **settings):
    with Receiver(
        Settings(home=site.settings.home, port=0, **settings), site.database, site.store
    ) as running:
        yield running


@contextmanager
def association(port, **options):
    ae = AE(ae_title="TESTMR")
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(Verification)
    assoc = ae.associate("127.0.0.1", port, ae_title="LUMBAR", **options)
    keep_responses(assoc)
    opened = assoc.dul.socket.socket if assoc.dul.socket else None
    yield assoc
    if assoc.is_established:
        assoc.abort()
    if opened is not None:  # pynetdicom leaves it open where the peer closed the connection
        opened.close()


@contextmanager
def connection(port):
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as opened:
        yield opened


def echo(port, *options):
    return subprocess.run(
        ["echoscu", "-aec", "LUMBAR", *options, "127.0.0.1", str(port)], capture_output=True
    )


def received_from(opened):
    """What the receiver sends until it closes the connection."""
    content = b""
    while part := opened.recv(4096):
        content += part
    return content


def audited(site):
    with site.database.reading() as session:
        return [
            (e.event, e.actor, e.detail["why"])
            for e in session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        ]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, certificates of it for both sides, and a self-signed one of an untrusted client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "untrusted"):
        new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name in ("localhost", "scanner"):
        openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            "csr",
        )
        sign = [
            "x509",
            "-req",
            "-in",
            "csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
        ]
        openssl(*sign, "-out", f"{name}.pem")
    return folder


@pytest.fixture
def tls(certificates):
    return {
        "tls_certificate": certificates / "localhost.pem",
        "tls_key": certificates / "localhost.key",
    }


def test_only_known_addresses_may_connect(site):
    with listening(site, known_addresses="10.0.0.0/8, ::1") as running:
        assert echo(running.port).returncode != 0
        wait_until(
            lambda: audited(site) == [("connection.refused", "", "address not allowed")], 10, str
        )
    with listening(site, known_addresses="10.0.0.0/8,127.0.0.0/8") as running:
        assert echo(running.port).returncode == 0


def test_a_flood_of_refused_connections_is_summed_in_the_log(site):
    with capture_logs() as logged:
        with listening(site, known_addresses="10.0.0.0/8") as running:
            for _ in range(FIRST + 10):
                with connection(running.port) as opened:
                    received_from(opened)
        refused = [line for line in logged if line["event"] == "connection.refused"]
    assert ["times" in line for line in refused] == [False] * FIRST + [True]
    assert refused[-1]["times"] == 10


def test_rejected_associations_are_audited(site):
    with listening(site, known_aes="MR1") as running:
        for _ in range(3):
            assert echo(running.port, "-aet", "MR2").returncode != 0
            assert echo(running.port, "-aet", "MR1", "-aec", "ANOTHER").returncode != 0
    assert Counter(audited(site)) == {
        ("association.rejected", "AE:MR1", "called AE title not recognised"): 3,
        ("association.rejected", "AE:MR2", "calling AE title not recognised"): 3,
    }
    with site.database.reading() as session:
        lines = session.scalars(select(AuditEvent)).all()
    assert {(line.address, line.outcome) for line in lines} == {("127.0.0.1", Outcome.REFUSED)}


def test_with_a_certificate_it_accepts_tls_only(site, tls, certificates):
    trusting = ["+tla", "+cf", str(certificates / "ca.pem")]
    with listening(site, **tls) as running:
        assert echo(running.port, *trusting).returncode == 0
        assert echo(running.port).returncode != 0
        context = ssl.create_default_context(cafile=certificates / "ca.pem")
        context.check_hostname = False
        with association(running.port, tls_args=(context, None)) as assoc:
            assert assoc.send_c_store(make_slice()).Status == 0


def test_tls_older_than_1_2_is_refused(site, tls):
    with listening(site, **tls) as running:
        with connection(running.port) as opened:
            opened.sendall(
                bytes.fromhex("160301002d 01000029 0301")
                + b"\0" * 32
                + bytes.fromhex("00 0002002f 0100")
            )
            assert received_from(opened)[:1] == b"\x15"  # a TLS alert
        wait_until(
            lambda: audited(site) == [("connection.refused", "", "TLS handshake failed")], 10, str
        )


def test_with_a_client_ca_clients_must_present_a_certificate_of_it(site, tls, certificates):
    ca = ["+cf", str(certificates / "ca.pem")]

    def client(name):
        return ["+tls", str(certificates / f"{name}.key"), str(certificates / f"{name}.pem"), *ca]

    with listening(site, **tls, tls_client_ca=certificates / "ca.pem") as running:
        assert echo(running.port, *client("scanner")).returncode == 0
        assert echo(running.port, *client("untrusted")).returncode != 0
        assert echo(running.port, "+tla", *ca).returncode != 0
    assert audited(site) == [("connection.refused", "", "TLS handshake failed")] * 2


def test_an_unusable_certificate_stops_the_start(site, tmp_path):
    (tmp_path / "a.pem").write_text("no certificate")
    with (
        pytest.raises(WrongSetting, match="LUMBAR_TLS_CERTIFICATE"),
        listening(site, tls_certificate=tmp_path / "a.pem", tls_key=tmp_path / "missing"),
    ):
        pass


def test_a_pdu_longer_than_allowed_is_answered_by_an_abort(site):
    with listening(site) as running, connection(running.port) as opened, capture_logs() as logged:
        opened.sendall(b"\x01\x00" + (MAX_PDU_ACCEPTED + 1).to_bytes(4, "big"))
        assert received_from(opened) == bytes.fromhex("07000000000400000200")
    assert ("connection.refused", "PDU longer than allowed") in reasons(logged)
    with listening(site) as running, association(running.port) as assoc, capture_logs() as logged:
        assoc.dul.socket.socket.sendall(b"\x04\x00" + (MAX_PDU_ACCEPTED + 1).to_bytes(4, "big"))
        wait_until(lambda: not assoc.is_established, 10, str)
        wait_until(
            lambda: ("association.aborted", "PDU longer than allowed") in reasons(logged),
            10,
            lambda: str(reasons(logged)),
        )
    assert ("association.aborted", "PDU longer than allowed") in reasons(logged)


def test_a_pdu_that_arrives_byte_by_byte_ends_the_connection(site):
    with listening(site, network_timeout_s=0.5) as running, capture_logs() as logged:
        with connection(running.port) as opened:
            opened.sendall(b"\x01\x00" + MAX_PDU_ACCEPTED.to_bytes(4, "big"))
            began, pause = monotonic(), Event()
            with suppress(OSError):
                while monotonic() - began < 20:
                    opened.sendall(b"\0")
                    pause.wait(0.05)
            assert monotonic() - began < 20
        with association(running.port) as assoc:
            assoc.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x01\x00")
            wait_until(lambda: not assoc.is_established, 10, str)
            aborted = ("association.aborted", "PDU too slow")
            # logged a moment after the peer notices
            wait_until(lambda: aborted in reasons(logged), 10, lambda: str(reasons(logged)))
    assert ("connection.refused", "PDU too slow") in reasons(logged)


def test_an_association_has_a_maximum_duration(site):
    with (
        listening(site, association_limit_s=1) as running,
        capture_logs() as logged,
        association(running.port) as assoc,
    ):
        wait_until(lambda: not assoc.is_established or not assoc.send_c_echo(), 20, str)
    assert ("association.aborted", "association lasted too long") in reasons(logged)


def test_an_image_larger_than_allowed_is_a700_and_the_association_goes_on(site):
    large = make_slice(Rows=1024, Columns=1024, PixelData=b"\1" * 2**21)
    with (
        listening(site, maximum_instance_mib=1) as running,
        capture_logs() as logged,
        association(running.port) as assoc,
    ):
        assert assoc.send_c_store(large).Status == 0xA700
        assert assoc.send_c_store(make_slice()).Status == 0
    why = "larger than 1 MiB (LUMBAR_MAXIMUM_INSTANCE_MIB)"
    assert ("instance.refused", why) in reasons(logged)
    assert not list(site.store.root.rglob("*.part"))
    assert len(list(site.store.root.rglob("*.dcm"))) == 1


def test_a_disk_that_is_nearly_full_is_a700_before_it_is_full(site):
    with (
        listening(site, disk_refuse_above=1e-6, disk_remove_above=1e-6) as running,
        association(running.port) as assoc,
    ):
        assert assoc.send_c_store(make_slice()).Status == 0xA700
    assert not list(site.store.root.rglob("*.dcm"))


def test_an_idle_association_is_closed_to_admit_a_new_one_and_an_active_one_is_not(
    site, monkeypatch
):
    monkeypatch.setattr(admission, "IDLE_S", 60)  # none is idle, however slow this machine is
    monkeypatch.setattr(admission, "UNUSED_S", 60)
    with (
        listening(site, maximum_associations=2) as running,
        capture_logs() as logged,
        ExitStack() as stack,
    ):
        idle, active = [stack.enter_context(association(running.port)) for _ in range(2)]
        with association(running.port) as third:  # both have just sent something
            assert third.is_rejected
        monkeypatch.setattr(admission, "IDLE_S", IDLE_S)
        monkeypatch.setattr(admission, "UNUSED_S", IDLE_S)
        began = monotonic()
        wait_until(
            lambda: active.send_c_echo().Status == 0 and monotonic() - began > IDLE_S + 0.1, 20, str
        )
        assert echo(running.port).returncode == 0
        wait_until(lambda: not idle.is_established, 10, str)
        assert active.send_c_echo().Status == 0
    assert ("association.rejected", "too many associations") in reasons(logged)
    assert ("association.aborted", "idle association, closed to admit a new one") in reasons(logged)


def test_a_stranger_displaces_nobody(site, monkeypatch):
    monkeypatch.setattr(admission, "UNUSED_S", 0.0)
    with (
        listening(site, maximum_associations=2, known_aes="TESTMR") as running,
        ExitStack() as stack,
    ):
        known = [stack.enter_context(association(running.port)) for _ in range(2)]
        assert echo(running.port, "-aet", "STRANGER").returncode != 0
        assert all(assoc.send_c_echo().Status == 0 for assoc in known)


def test_a_transfer_that_pauses_is_not_idle(site):
    with listening(site, maximum_associations=1) as running, connection(running.port) as opened:
        peer = wire.RawConnection(running.port, stream=opened)
        peer.associate()
        command = wire.store_command(b"1.2.3")
        peer.send(wire.p_data(wire.IMAGE, command, command=True))
        wait_until(lambda: any(c.in_message for c in running._admission._connections), 10, str)
        for one in running._admission._connections:
            one.last_pdu_at -= IDLE_S + 1
        assert echo(running.port).returncode != 0


def test_the_oldest_pending_connection_is_closed_to_admit_a_new_one(site):
    with listening(site) as running, ExitStack() as stack:
        pending = [stack.enter_context(connection(running.port)) for _ in range(MAX_PENDING + 5)]
        assert [received_from(opened) for opened in pending[:5]] == [b""] * 5
        assert echo(running.port).returncode == 0


def test_a_message_that_is_not_supported_ends_the_association(site):
    with listening(site) as running, association(running.port) as assoc, capture_logs() as logged:
        report = N_EVENT_REPORT()
        report.MessageID, report.EventTypeID = 1, 1
        report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = Verification, "1.2.3"
        assoc.dimse.send_msg(report, assoc.accepted_contexts[-1].context_id)
        wait_until(lambda: not assoc.is_established, 10, str)
        wait_until(
            lambda: ("association.aborted", "message not supported") in reasons(logged),
            10,
            lambda: str(reasons(logged)),
        )
    assert ("association.aborted", "message not supported") in reasons(logged)


def reasons(logged):
    return {(entry["event"], entry.get("why")) for entry in logged}
