"""Negotiates associations with pynetdicom's PDUs and presentation contexts (PS3.7 D, PS3.8 7.1)."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from scp.pdu_stream import MAX_PDU_ANNOUNCED

# Our own events state what happened; pynetdicom's texts quote values of the peer's.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 0x0001

# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
WRONG_VERSION = (1, 2, 2)
UNKNOWN_APPLICATION = (1, 1, 2)
UNKNOWN_CALLING_TITLE = (1, 1, 3)
UNKNOWN_CALLED_TITLE = (1, 1, 7)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


class Rejected(Exception):
    """The association is rejected, with the reason to log; ``pdu`` is the A-ASSOCIATE-RJ."""

    def __init__(self, code: tuple[int, int, int], why: str) -> None:
        super().__init__(why)
        self.pdu = bytes((0x03, 0, 0, 0, 0, 4, 0, *code))


@dataclass(frozen=True)
class AcceptedContext:
    """A presentation context that both sides agreed on."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Request:
    """An association request that could be decoded."""

    version: int
    primitive: A_ASSOCIATE

    @classmethod
    def decode(cls, content: bytes) -> "Request":
        """Decodes an A-ASSOCIATE-RQ.

        Raises:
            ValueError: an item is malformed, or a presentation context lacks a syntax.
        """
        try:
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(content)
            primitive = pdu.to_primitive()
            for context in primitive.presentation_context_definition_list:
                if not (context.abstract_syntax and context.transfer_syntax):
                    raise ValueError
            return cls(pdu.protocol_version, primitive)
        except Exception:  # noqa: BLE001 - malformed items make pynetdicom raise nearly anything
            raise ValueError("association request cannot be decoded") from None

    @property
    def calling_ae_title(self) -> str:
        return str(self.primitive.calling_ae_title).strip()


@dataclass(frozen=True)
class Acceptor:
    """What our application entity accepts."""

    ae_title: str
    known_aes: Collection[str]  # calling AE titles; empty: any
    supported: Sequence[PresentationContext]

    def accept(self, request: Request) -> tuple[bytes, Mapping[int, AcceptedContext]]:
        """The A-ASSOCIATE-AC, and the accepted contexts by their numbers.

        A user identity is neither checked nor answered, and only one operation may be outstanding.

        Raises:
            Rejected: an AE title is not known, or the peer speaks another protocol.
        """
        proposed = request.primitive
        if not request.version & PROTOCOL_VERSION:
            raise Rejected(WRONG_VERSION, "protocol version not supported")
        if proposed.application_context_name != APPLICATION_CONTEXT:
            raise Rejected(UNKNOWN_APPLICATION, "application context not supported")
        if str(proposed.called_ae_title).strip() != self.ae_title.strip():
            raise Rejected(UNKNOWN_CALLED_TITLE, "called AE title not recognised")
        if self.known_aes and request.calling_ae_title not in self.known_aes:
            raise Rejected(UNKNOWN_CALLING_TITLE, "calling AE title not recognised")
        contexts, roles = negotiate_as_acceptor(
            proposed.presentation_context_definition_list, list(self.supported), _roles(proposed)
        )
        answer = A_ASSOCIATE()
        answer.application_context_name = APPLICATION_CONTEXT
        answer.calling_ae_title, answer.called_ae_title = (
            proposed.calling_ae_title,
            proposed.called_ae_title,
        )
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = contexts
        answer.user_information = [*_user_information(), *roles]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        accepted = {
            cast(int, context.context_id): AcceptedContext(
                str(context.abstract_syntax), str(context.transfer_syntax[0])
            )
            for context in contexts
            if context.result == 0
        }
        return pdu.encode(), accepted


def _roles(request: A_ASSOCIATE) -> dict[UID, tuple[bool | None, bool | None]]:
    """The SCU and SCP roles that the peer proposes, by SOP class (PS3.7 D.3.3.4)."""
    return {
        UID(str(item.sop_class_uid)): (item.scu_role, item.scp_role)
        for item in request.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }


def _user_information() -> list[Any]:
    length, uid, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = MAX_PDU_ANNOUNCED
    uid.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    return [length, uid, version]
