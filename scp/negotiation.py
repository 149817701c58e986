"""Negotiates associations: what of a request is accepted, and the answer (PS3.7 D, PS3.8 7.1)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from struct import pack

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from scp.association_request import AssociationRequest, ProposedContext
from scp.pdu_stream import MAX_PDU_ANNOUNCED

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 0x0001
DEFAULT_SYNTAX = "1.2.840.10008.1.2"  # Implicit VR Little Endian

# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
WRONG_VERSION = (1, 2, 2)
NOTHING_PROPOSED = (1, 1, 1)
UNKNOWN_APPLICATION = (1, 1, 2)
UNKNOWN_CALLING_TITLE = (1, 1, 3)
UNKNOWN_CALLED_TITLE = (1, 1, 7)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)

# Results of a presentation context (PS3.8 table 9-18).
ACCEPTANCE = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


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
class _Answer:
    """The answer to a proposed presentation context."""

    proposed: ProposedContext
    result: int
    transfer_syntax: str  # without significance, but there, unless it is accepted (PS3.8 9.3.3.2)


@dataclass(frozen=True)
class Acceptor:
    """What our application entity accepts."""

    ae_title: str
    known_aes: Collection[str]  # calling AE titles; empty: any
    supported: Mapping[str, Sequence[str]]  # transfer syntaxes by abstract syntax, in our order

    def accept(self, request: AssociationRequest) -> tuple[bytes, Mapping[int, AcceptedContext]]:
        """The A-ASSOCIATE-AC, and the accepted contexts by their numbers.

        The peer is the SCU, whatever roles it proposes; a user identity is neither checked nor
        answered, and only one operation may be outstanding (PS3.7 D.3.3: none of them is answered).

        Raises:
            Rejected: an AE title is not known, or the peer speaks another protocol.
        """
        self._require_known(request)
        answers = [self._answer(proposed) for proposed in request.contexts]
        accepted = {
            answer.proposed.number: AcceptedContext(
                answer.proposed.abstract_syntax, answer.transfer_syntax
            )
            for answer in answers
            if answer.result == ACCEPTANCE
        }
        return _acceptance(request, answers), accepted

    def _require_known(self, request: AssociationRequest) -> None:
        """Checks the peer and its protocol. A blank AE title is never a known one.

        Raises:
            Rejected: it is not ours to accept.
        """
        if not request.version & PROTOCOL_VERSION:
            raise Rejected(WRONG_VERSION, "protocol version not supported")
        if request.application_context not in ("", APPLICATION_CONTEXT):  # DICOM has no other
            raise Rejected(UNKNOWN_APPLICATION, "application context not supported")
        if request.called_ae_title != self.ae_title.strip():
            raise Rejected(UNKNOWN_CALLED_TITLE, "called AE title not recognised")
        if self.known_aes and request.calling_ae_title not in self.known_aes:
            raise Rejected(UNKNOWN_CALLING_TITLE, "calling AE title not recognised")
        if not request.contexts:
            raise Rejected(NOTHING_PROPOSED, "no presentation context proposed")

    def _answer(self, proposed: ProposedContext) -> _Answer:
        """The first of our transfer syntaxes that the peer proposes, or why there is none."""
        syntaxes = proposed.transfer_syntaxes
        first = syntaxes[0] if syntaxes else DEFAULT_SYNTAX
        ours = self.supported.get(proposed.abstract_syntax)
        if ours is None:
            return _Answer(proposed, ABSTRACT_SYNTAX_NOT_SUPPORTED, first)
        for syntax in ours:
            if syntax in syntaxes:
                return _Answer(proposed, ACCEPTANCE, syntax)
        return _Answer(proposed, TRANSFER_SYNTAXES_NOT_SUPPORTED, first)


def _acceptance(request: AssociationRequest, answers: Sequence[_Answer]) -> bytes:
    """The A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    contexts = (
        _item(
            0x21,
            bytes((answer.proposed.number, 0, answer.result, 0)),
            _item(0x40, answer.transfer_syntax.encode()),
        )
        for answer in answers
    )
    user_information = (
        _item(0x51, pack(">L", MAX_PDU_ANNOUNCED)),
        _item(0x52, PYNETDICOM_IMPLEMENTATION_UID.encode()),
        _item(0x55, PYNETDICOM_IMPLEMENTATION_VERSION.encode()),
    )
    content = b"".join(
        (
            pack(">HH", PROTOCOL_VERSION, 0),
            request.echoed,
            _item(0x10, APPLICATION_CONTEXT.encode()),
            *contexts,
            _item(0x50, *user_information),
        )
    )
    return pack(">BBL", 0x02, 0, len(content)) + content


def _item(kind: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return pack(">BBH", kind, 0, len(content)) + content
