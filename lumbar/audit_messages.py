"""The audit trail's events as DICOM audit messages (PS3.15 A.5.2).

Participants and objects are identified by users' names, AE titles, addresses, Study Instance UIDs
and ids of rows; the messages contain nothing else about a patient.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from ipaddress import ip_address
from typing import Any
from xml.etree import ElementTree


class Outcome(IntEnum):
    """EventOutcomeIndicator of PS3.15 A.5.2."""

    SUCCESS = 0
    REFUSED = 4  # "minor failure": somebody may not do this, or did not prove who they are
    SERIOUS_FAILURE = 8

    @property
    def label(self) -> str:
        """As lists show it."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class AuditLine:
    """A row of the audit trail.

    ``actor``: a user, a calling AE title or a service; ``address``: of the network, or a host's
    name; empty: not known. ``times``: how often it happened, in ``detail["seconds"]`` if more than
    once. ``detail`` names other objects than the study by the keys of ``OBJECTS``.
    """

    happened_at: datetime
    event: str
    actor: str
    address: str = ""
    outcome: Outcome = Outcome.SUCCESS
    times: int = 1
    study_instance_uid: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """An event in DICOM terms: EventID (PS3.16 CID 400), action, EventTypeCode (CID 401)."""

    code: str
    meaning: str
    action: str  # C create, R read, U update, D delete, E execute
    type_code: tuple[str, str] | None = None


AE_PREFIX = "AE:"  # of an actor that is no user but a sender, by its AE title

_ACCESSED = ("110103", "DICOM Instances Accessed")
_DELETED = ("110105", "DICOM Study Deleted")
_IMPORT = ("110107", "Import")
_ALERT = ("110113", "Security Alert")
_AUTHENTICATED = ("110114", "User Authentication")
_LOGIN, _LOGOUT = ("110122", "Login"), ("110123", "Logout")
_NODE = ("110126", "Node Authentication")
_RESTRICTED = ("110132", "Use of Restricted Function")
_ROLES = ("110136", "Security Roles Changed")
_USER_CHANGED = ("110137", "User Security Attributes Changed")
_BY_EVENT = {
    "study.deleted": _Kind(*_DELETED, "D"),
    "study.deletion_begun": _Kind(*_DELETED, "D"),
    "study.images_removed": _Kind(*_ACCESSED, "D"),
    "study.seen": _Kind(*_ACCESSED, "R"),
    "images.seen": _Kind(*_ACCESSED, "R"),
    "upload.received": _Kind(*_IMPORT, "C"),
    "upload.kept": _Kind(*_IMPORT, "C"),
    "sign_in.done": _Kind(*_AUTHENTICATED, "E", _LOGIN),
    "sign_in.refused": _Kind(*_AUTHENTICATED, "E", _LOGIN),
    "sign_in.throttled": _Kind(*_AUTHENTICATED, "E", _LOGIN),
    "sign_out": _Kind(*_AUTHENTICATED, "E", _LOGOUT),
    "token.refused": _Kind(*_AUTHENTICATED, "E", _LOGIN),
    "password.refused": _Kind(*_AUTHENTICATED, "E"),
    "password.throttled": _Kind(*_AUTHENTICATED, "E"),
    "audit.seen": _Kind("110101", "Audit Log Used", "R"),
    "request.refused": _Kind(*_ALERT, "E", _RESTRICTED),
    "request.forged": _Kind(*_ALERT, "E", _RESTRICTED),
    "connection.refused": _Kind(*_ALERT, "E", _NODE),
    "association.rejected": _Kind(*_ALERT, "E", _NODE),
    "store.missing": _Kind(*_ALERT, "E"),
    "user.role_set": _Kind(*_ALERT, "U", _ROLES),
}
_BY_PREFIX = {
    "user.": _Kind(*_ALERT, "U", _USER_CHANGED),
    "token.": _Kind(*_ALERT, "U", _USER_CHANGED),
}
_BY_SUFFIX = {".seen": _Kind("110112", "Query", "E"), ".exported": _Kind("110106", "Export", "R")}
_DEFAULT = _Kind(*_ACCESSED, "U")


@dataclass(frozen=True)
class _ObjectKind:
    """ParticipantObjectTypeCode and, where one fits, ParticipantObjectTypeCodeRole."""

    type_code: str = "2"  # a system object
    role: str | None = None


OBJECTS = {
    "user": _ObjectKind("1", "11"),  # a person; a security user entity
    "token": _ObjectKind(role="13"),  # a security resource
    "job": _ObjectKind(role="20"),
    "destination": _ObjectKind(role="16"),
    "to": _ObjectKind(role="16"),  # the other destination
    "table": _ObjectKind(role="22"),
    "upload": _ObjectKind(),
    "finding": _ObjectKind(),
    "review": _ObjectKind(),
    "instance": _ObjectKind(),
    "file": _ObjectKind(),
}


def audit_message(line: AuditLine, source: str) -> bytes:
    """The message in XML; ``source`` names this system."""
    kind = _kind(line.event)
    root = ElementTree.Element("AuditMessage")
    _identify_event(root, line, kind)
    participant = {"UserID": line.actor or "unknown", "UserIsRequestor": "true"}
    if line.actor.startswith(AE_PREFIX):
        participant["AlternativeUserID"] = f"AETITLES={line.actor.removeprefix(AE_PREFIX)}"
    if line.address:
        participant |= {
            "NetworkAccessPointID": line.address,
            "NetworkAccessPointTypeCode": _address_type(line.address),
        }
    ElementTree.SubElement(root, "ActiveParticipant", participant)
    ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=source)
    if (uid := line.study_instance_uid) is not None:
        report = _ObjectKind(role="3")
        _object(root, report, uid, ("110180", "DCM", "Study Instance UID"))
    if kind.code == "110101":
        resource = _ObjectKind(role="13")
        _object(root, resource, "/audit", ("12", "RFC-3881", "URI"), name="Security Audit Log")
    for name, object_kind in OBJECTS.items():
        if name in line.detail:
            id_type = (name, "99LUMBAR", name)
            if name == "user":
                id_type = ("11", "RFC-3881", "User Identifier")
            _object(root, object_kind, str(line.detail[name]), id_type)
    if kind.code == _ALERT[0]:
        alert = _object(root, _ObjectKind(), source, ("110182", "DCM", "Node ID"))
        described = b64encode(f"{line.event}: {in_words(line)}".encode()).decode()
        detail = {"type": "Alert Description", "value": described}
        ElementTree.SubElement(alert, "ParticipantObjectDetail", detail)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml


def objects_of(line: AuditLine) -> str:
    """What else than a study an event is about: "token 3, user anna"."""
    return ", ".join(f"{name} {line.detail[name]}" for name in OBJECTS if name in line.detail)


def in_words(line: AuditLine) -> str:
    """What remains of a line's detail, and how often it happened."""
    rest = {key: value for key, value in line.detail.items() if key not in OBJECTS}
    seconds = rest.pop("seconds", None)
    words = [f"{key} {value}" for key, value in rest.items()]
    if seconds is not None:
        words.append(f"{line.times} more in {seconds} s")
    return ", ".join(words)


def _identify_event(root: ElementTree.Element, line: AuditLine, kind: _Kind) -> None:
    event = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=line.happened_at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(line.outcome)),
    )
    _code(event, "EventID", kind.code, "DCM", kind.meaning)
    if kind.type_code is not None:
        code, meaning = kind.type_code
        _code(event, "EventTypeCode", code, "DCM", meaning)
    _code(event, "EventTypeCode", line.event, "99LUMBAR", line.event)
    if words := in_words(line):
        ElementTree.SubElement(event, "EventOutcomeDescription").text = words


def _address_type(address: str) -> str:
    """NetworkAccessPointTypeCode: 2 an IP address, 1 a host's name."""
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return "1"
    return "2"


def _object(
    root: ElementTree.Element,
    kind: _ObjectKind,
    identifier: str,
    id_type: tuple[str, str, str],
    name: str = "",
) -> ElementTree.Element:
    attributes = {
        "ParticipantObjectID": identifier,
        "ParticipantObjectTypeCode": kind.type_code,
    }
    if kind.role is not None:
        attributes["ParticipantObjectTypeCodeRole"] = kind.role
    element = ElementTree.SubElement(root, "ParticipantObjectIdentification", attributes)
    _code(element, "ParticipantObjectIDTypeCode", *id_type)
    # the schema requires a name, or a query
    ElementTree.SubElement(element, "ParticipantObjectName").text = name or identifier
    return element


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
