"""The audit trail as DICOM audit messages, and its forwarding to a syslog server."""

import socket
import threading
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from db import audit
from db.models import AuditEvent
from lumbar.audit_messages import AuditLine, audit_message
from lumbar.errors import Transient, WrongSetting
from lumbar.syslog import Syslog
from tests.peers import free_port
from tests.system import wait_until

WHEN = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "code", "action", "outcome"),
    [
        ("study.seen", "110103", "R", "0"),
        ("worklist.seen", "110112", "E", "0"),
        ("findings.exported", "110106", "R", "0"),
        ("study.deleted", "110105", "D", "0"),
        ("sign_in.done", "110114", "E", "0"),
        ("sign_in.refused", "110114", "E", "4"),
        ("user.added", "110113", "U", "0"),
        ("association.rejected", "110113", "E", "4"),
        ("finding.reviewed", "110103", "U", "0"),
    ],
)
def test_an_event_is_coded_as_dicom_requires(event, code, action, outcome):
    root = ElementTree.fromstring(
        audit_message(AuditLine(WHEN, event, 'an"<na', study_instance_uid="1.2.3"), "here")
    )
    identification = root.find("EventIdentification")
    assert (
        identification.find("EventID").get("csd-code"),
        identification.get("EventActionCode"),
    ) == (code, action)
    assert (
        identification.get("EventOutcomeIndicator"),
        identification.find("EventTypeCode").get("csd-code"),
    ) == (
        outcome,
        event,
    )
    assert root.find("ActiveParticipant").get("UserID") == 'an"<na'
    assert root.find("ParticipantObjectIdentification").get("ParticipantObjectID") == "1.2.3"
    assert root.find("AuditSourceIdentification").get("AuditSourceID") == "here"


class Listener:
    """A syslog server over TCP that keeps the messages it receives."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self.messages = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                while length := b"".join(_digits(stream)):
                    self.messages.append(stream.read(int(length)))

    def close(self):
        self._socket.close()


def _digits(stream):
    while (byte := stream.read(1)) not in (b" ", b""):
        yield byte


def fill(database, count, age=timedelta(minutes=5)):
    with database.transaction() as session:
        session.add_all(
            AuditEvent(
                event=f"event.{n}", actor="anna", detail={}, happened_at=datetime.now(UTC) - age
            )
            for n in range(count)
        )


def test_every_settled_line_is_sent_once_and_in_order(database):
    listener = Listener()
    fill(database, 3)
    assert audit.forward(database, Syslog(listener.url)) == 3
    fill(database, 2)
    # too recent: a line with a smaller number may still appear
    fill(database, 1, age=timedelta(seconds=5))
    assert audit.forward(database, Syslog(listener.url)) == 2
    assert audit.forward(database, Syslog(listener.url)) == 0
    wait_until(lambda: len(listener.messages) == 5, 10, lambda: str(listener.messages))
    listener.close()
    messages = listener.messages
    assert all(
        message.startswith(b"<85>1 ") and b" DICOM+RFC3881 - \xef\xbb\xbf<?xml" in message
        for message in messages
    )
    assert [message.split(b'csd-code="event.')[1][:1] for message in messages] == [
        b"0",
        b"1",
        b"2",
        b"0",
        b"1",
    ]


def test_lines_that_an_unavailable_server_did_not_receive_are_sent_later(database):
    fill(database, 2)
    with pytest.raises(Transient, match="does not accept audit messages"):
        audit.forward(database, Syslog(f"tcp://127.0.0.1:{free_port()}"))
    listener = Listener()
    assert audit.forward(database, Syslog(listener.url)) == 2
    listener.close()


def test_a_datagram_contains_one_message():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        Syslog(f"udp://127.0.0.1:{server.getsockname()[1]}").send(
            [AuditLine(WHEN, "study.seen", "anna", study_instance_uid="1.2.3")]
        )
        assert server.recv(65535).endswith(b"</AuditMessage>")


@pytest.mark.parametrize("url", ["http://host:1", "tcp://", "udp://host:99999", "host:514", ""])
def test_an_unusable_address_is_refused(url):
    with pytest.raises(WrongSetting, match="LUMBAR_SYSLOG"):
        Syslog(url)
