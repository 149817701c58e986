"""The audit trail's events as DICOM audit messages (PS3.15 A.5.2), sent by syslog (RFC 5424).

Participants and objects are identified by users' names, AE titles and Study Instance UIDs; the
messages contain nothing else about a patient.
"""

import os
import socket
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from lumbar.errors import Transient, WrongSetting

APP_NAME, MESSAGE_ID = "lumbar-triage", "DICOM+RFC3881"
PRIORITY = 10 * 8 + 5  # authpriv.notice
PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
TIMEOUT_S = 10.0  # for connecting, and for each message


@dataclass(frozen=True)
class AuditLine:
    """A row of the audit trail."""

    happened_at: datetime
    event: str
    actor: str
    study_instance_uid: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """An event in DICOM terms: EventID (PS3.16 CID 400), EventActionCode and outcome."""

    code: str
    meaning: str
    action: str  # C create, R read, U update, D delete, E execute
    outcome: int = 0  # 0 success, 4 minor failure, 8 serious failure


_ACCESSED = ("110103", "DICOM Instances Accessed")
_ALERT = ("110113", "Security Alert")
_AUTHENTICATED = ("110114", "User Authentication")
_BY_EVENT = {
    "study.deleted": _Kind("110105", "DICOM Study Deleted", "D"),
    "study.deletion_begun": _Kind("110105", "DICOM Study Deleted", "D"),
    "study.images_removed": _Kind(*_ACCESSED, "D"),
    "study.seen": _Kind(*_ACCESSED, "R"),
    "images.seen": _Kind(*_ACCESSED, "R"),
    "sign_in.done": _Kind(*_AUTHENTICATED, "E"),
    "sign_in.refused": _Kind(*_AUTHENTICATED, "E", 4),
    "sign_out": _Kind(*_AUTHENTICATED, "E"),
    "connection.refused": _Kind(*_ALERT, "E", 4),
    "association.rejected": _Kind(*_ALERT, "E", 4),
    "store.missing": _Kind(*_ALERT, "E", 8),
}
_BY_PREFIX = {"user.": _Kind(*_ALERT, "U"), "token.": _Kind(*_ALERT, "U")}
_BY_SUFFIX = {".seen": _Kind("110112", "Query", "E"), ".exported": _Kind("110106", "Export", "R")}
_DEFAULT = _Kind(*_ACCESSED, "U")


def audit_message(line: AuditLine, source: str) -> bytes:
    """The message in XML; ``source`` names this system."""
    kind = _kind(line.event)
    root = ElementTree.Element("AuditMessage")
    event = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=line.happened_at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(kind.outcome),
    )
    _code(event, "EventID", kind.code, "DCM", kind.meaning)
    _code(event, "EventTypeCode", line.event, "99LUMBAR", line.event)
    participant = {"UserID": line.actor or "unknown", "UserIsRequestor": "true"}
    if peer := line.detail.get("peer"):
        participant |= {"NetworkAccessPointID": str(peer), "NetworkAccessPointTypeCode": "2"}
    ElementTree.SubElement(root, "ActiveParticipant", participant)
    ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=source)
    if line.study_instance_uid:
        study = ElementTree.SubElement(
            root,
            "ParticipantObjectIdentification",
            ParticipantObjectID=line.study_instance_uid,
            ParticipantObjectTypeCode="2",  # a system object
            ParticipantObjectTypeCodeRole="3",  # a report
        )
        _code(study, "ParticipantObjectIDTypeCode", "110180", "DCM", "Study Instance UID")
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml


def _kind(event: str) -> _Kind:
    if event in _BY_EVENT:
        return _BY_EVENT[event]
    for prefix, kind in _BY_PREFIX.items():
        if event.startswith(prefix):
            return kind
    for suffix, kind in _BY_SUFFIX.items():
        if event.endswith(suffix):
            return kind
    return _DEFAULT


def _code(parent: ElementTree.Element, name: str, code: str, scheme: str, meaning: str) -> None:
    ElementTree.SubElement(
        parent, name, {"csd-code": code, "codeSystemName": scheme, "originalText": meaning}
    )


class Syslog:
    """A syslog server that receives audit messages.

    The URL is ``udp://`` (RFC 5426), ``tcp://`` (RFC 6587) or ``tls://`` (RFC 5425) with host and
    port.
    """

    def __init__(self, url: str) -> None:
        """Parses the URL; only ``send`` opens a connection.

        Raises:
            WrongSetting: the URL has another scheme, or no valid host and port.
        """
        try:
            parts = urlsplit(url)
            self._scheme, self._host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            self._scheme, self._host, port = "", "", None
        if self._scheme not in PORTS or not self._host:
            raise WrongSetting(
                "LUMBAR_SYSLOG: expected udp://host:port, tcp://host:port or tls://host:port"
            )
        self._port = port or PORTS[self._scheme]

    def send(self, lines: list[AuditLine]) -> None:
        """Sends the lines in order.

        Raises:
            Transient: the server is unreachable; some lines may have arrived.
        """
        hostname = socket.gethostname()
        try:
            if self._scheme == "udp":
                with socket.socket(self._family(), socket.SOCK_DGRAM) as udp:
                    for line in lines:
                        udp.sendto(_framed(line, hostname), (self._host, self._port))
                return
            with socket.create_connection((self._host, self._port), TIMEOUT_S) as plain:
                if self._scheme == "tls":
                    with ssl.create_default_context().wrap_socket(
                        plain, server_hostname=self._host
                    ) as secure:
                        self._stream(secure, lines, hostname)
                else:
                    self._stream(plain, lines, hostname)
        except OSError as error:
            raise Transient(
                f"the syslog server does not accept audit messages ({type(error).__name__})"
            ) from error

    def _family(self) -> socket.AddressFamily:
        return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0][0]

    @staticmethod
    def _stream(connection: socket.socket, lines: list[AuditLine], hostname: str) -> None:
        for line in lines:
            message = _framed(line, hostname)
            connection.sendall(f"{len(message)} ".encode() + message)


def _framed(line: AuditLine, hostname: str) -> bytes:
    """A syslog message: header, no structured data, the XML after a UTF-8 byte order mark."""
    when = line.happened_at.isoformat(timespec="milliseconds")
    head = f"<{PRIORITY}>1 {when} {hostname} {APP_NAME} {os.getpid()} {MESSAGE_ID} - "
    return head.encode() + b"\xef\xbb\xbf" + audit_message(line, hostname)
