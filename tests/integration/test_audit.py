"""The audit trail as DICOM audit messages, and its forwarding to a syslog server."""

import base64
import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from pydicom.sr._concepts_dict import concepts

from db import audit
from db.audit import Filter, Participant
from db.models import AuditEvent
from lumbar.audit_messages import AuditLine, Outcome, audit_message, objects_of
from lumbar.errors import Transient, WrongSetting
from lumbar.syslog import Syslog
from tests.peers import free_port
from tests.system import wait_until

WHEN = datetime(2026, 11, 27, 12, tzinfo=UTC)


REFUSED, SUCCESS = Outcome.REFUSED, Outcome.SUCCESS
RESTRICTED, LOGIN, NODE = "110132", "110122", "110126"


@pytest.mark.parametrize(
    ("event", "code", "action", "type_code"),
    [
        ("study.seen", "110103", "R", None),
        ("worklist.seen", "110112", "E", None),
        ("findings.exported", "110106", "R", None),
        ("study.deleted", "110105", "D", None),
        ("upload.received", "110107", "C", None),
        ("audit.seen", "110101", "R", None),
        ("sign_in.done", "110114", "E", LOGIN),
        ("sign_in.refused", "110114", "E", LOGIN),
        ("sign_in.throttled", "110114", "E", LOGIN),
        ("token.refused", "110114", "E", LOGIN),
        ("sign_out", "110114", "E", "110123"),
        ("user.added", "110113", "U", "110137"),
        ("user.role_set", "110113", "U", "110136"),
        ("token.revoked", "110113", "U", "110137"),
        ("request.refused", "110113", "E", RESTRICTED),
        ("request.forged", "110113", "E", RESTRICTED),
        ("association.rejected", "110113", "E", NODE),
        ("finding.reviewed", "110103", "U", None),
    ],
)
@pytest.mark.parametrize("outcome", Outcome)
def test_an_event_is_coded_as_dicom_requires(event, code, action, type_code, outcome):
    """The codes are those of PS3.16 CID 400 and 401, as pydicom has them."""
    line = AuditLine(
        WHEN, event, 'an"<na', "10.0.0.1", outcome, times=987, study_instance_uid="1.2.3"
    )
    root = ElementTree.fromstring(audit_message(line, "here"))
    require_schema(root)
    identification = root.find("EventIdentification")
    assert identification.find("EventID").get("csd-code") == code
    assert identification.get("EventActionCode") == action
    assert identification.get("EventOutcomeIndicator") == str(outcome.value)
    types = [(each.get("codeSystemName"), each.get("csd-code")) for each in identification[1:]]
    assert types == [*([("DCM", type_code)] if type_code else []), ("99LUMBAR", event)]
    for each in identification:
        if each.get("codeSystemName") == "DCM":
            meaning = concepts["DCM"][CODE_OF[each.get("csd-code")]][each.get("csd-code")][0]
            assert each.get("originalText") == meaning
    assert root.find("ActiveParticipant").attrib == {
        "UserID": 'an"<na',
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.0.0.1",
        "NetworkAccessPointTypeCode": "2",
    }
    assert root.find("ParticipantObjectIdentification").get("ParticipantObjectID") == "1.2.3"
    assert root.find("AuditSourceIdentification").get("AuditSourceID") == "here"


CODE_OF = {code: name for name, codes in concepts["DCM"].items() for code in codes}
CODED = {"csd-code", "codeSystemName", "originalText"}
# PS3.15 A.5.1.1: an element's attributes that must be there, and its children in order
SCHEMA = {
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "ActiveParticipant": ({"UserID", "UserIsRequestor"}, ""),
    "AuditSourceIdentification": ({"AuditSourceID"}, ""),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        "ParticipantObjectIDTypeCode ParticipantObjectName (ParticipantObjectDetail )*",
    ),
}


def require_schema(root):
    """The message has the parts that the standard's schema requires, in its order."""
    parts = "".join(f"{part.tag} " for part in root)
    order = (
        "EventIdentification ActiveParticipant AuditSourceIdentification "
        "(ParticipantObjectIdentification )*"
    )
    assert re.fullmatch(order, parts)
    for part in root:
        required, children = SCHEMA[part.tag]
        assert required <= set(part.attrib)
        assert re.fullmatch(children, "".join(f"{child.tag} " for child in part))
        for child in part:
            if child.tag.endswith("Code") or child.tag == "EventID":
                assert set(child.attrib) >= CODED
            elif child.tag == "ParticipantObjectDetail":
                base64.b64decode(child.get("value"), validate=True)
            else:
                assert child.text


def test_a_message_names_objects_reason_and_number():
    line = AuditLine(
        WHEN,
        "token.refused",
        "anna",
        "scanner-host",
        REFUSED,
        times=987,
        detail={"token": 7, "user": "ben", "why": "expired", "seconds": 60},
    )
    root = ElementTree.fromstring(audit_message(line, "here"))
    require_schema(root)
    objects = [
        (each.get("ParticipantObjectID"), each.find("ParticipantObjectIDTypeCode").get("csd-code"))
        for each in root.iter("ParticipantObjectIdentification")
    ]
    assert objects == [("ben", "11"), ("7", "token")]
    assert root.find("ActiveParticipant").get("NetworkAccessPointTypeCode") == "1"
    described = root.find("EventIdentification/EventOutcomeDescription")
    assert described.text == "why expired, 987 more in 60 s"
    assert objects_of(line) == "user ben, token 7"


def test_an_alert_names_its_node_and_a_look_at_the_trail_the_trail():
    alert = AuditLine(WHEN, "request.refused", "anna", detail={"request": "POST /users"})
    root = ElementTree.fromstring(audit_message(alert, "here"))
    require_schema(root)
    (node,) = root.iter("ParticipantObjectIdentification")
    assert node.get("ParticipantObjectID") == "here"
    detail = node.find("ParticipantObjectDetail")
    assert detail.get("type") == "Alert Description"
    described = base64.b64decode(detail.get("value")).decode()
    assert described == "request.refused: request POST /users"
    seen = ElementTree.fromstring(audit_message(AuditLine(WHEN, "audit.seen", "anna"), "here"))
    require_schema(seen)
    (trail,) = seen.iter("ParticipantObjectIdentification")
    assert trail.find("ParticipantObjectName").text == "Security Audit Log"
    assert "NetworkAccessPointID" not in seen.find("ActiveParticipant").attrib


def test_the_trail_is_filtered_by_who_from_where_what_and_outcome(database):
    with database.transaction() as session:
        for event, name, address, outcome in (
            ("study.seen", "anna", "10.0.0.1", SUCCESS),
            ("request.refused", "anna", "10.0.0.2", REFUSED),
            ("sign_in.refused", "", "10.0.0.2", REFUSED),
        ):
            audit.note(session, event, Participant(name, address), outcome=outcome)

    def found(**only):
        with database.reading() as session:
            rows, _ = audit.search(session, Filter(**only), limit=10)
        return [number for number, _ in rows]

    assert found() == [3, 2, 1]
    assert found(actor="anna") == [2, 1]
    assert found(address="10.0.0.2") == [3, 2]
    assert found(event="study.seen") == [1]
    assert found(refused=True) == [3, 2]
    assert found(refused=True, actor="anna") == [2]


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
