"""The audit trail's events as DICOM audit messages (PS3.15 A.5.2).

Participants and objects are identified by users' names, AE titles and Study Instance UIDs; the
messages contain nothing else about a patient.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any
from xml.etree import ElementTree


class Outcome(IntEnum):
    """EventOutcomeIndicator of PS3.15 A.5.2."""

    SUCCESS = 0
    REFUSED = 4  # "minor failure": somebody may not do this, or did not prove who they are
    SERIOUS_FAILURE = 8


@dataclass(frozen=True)
class AuditLine:
    """A row of the audit trail."""

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
