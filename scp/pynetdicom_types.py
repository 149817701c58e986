"""The attributes of pynetdicom's events and associations that the handlers use.

pynetdicom sets an event's attributes when the event happens, and ``scp.limits`` replaces the socket
and the dataset, so neither is declared there.
"""

from typing import Protocol

from scp.admission import Connection
from scp.spool import Spool


class AssociateRequest(Protocol):
    """The A-ASSOCIATE request primitive."""

    called_ae_title: str
    calling_ae_title: str


class Requestor(Protocol):
    """The peer. ``ae_title`` is set once the request was checked, ``primitive`` on its arrival."""

    ae_title: str
    primitive: AssociateRequest


class LocalEntity(Protocol):
    """Our application entity."""

    ae_title: str


class Socket(Protocol):
    """``scp.limits.LimitedSocket``."""

    connection: Connection


class UpperLayer(Protocol):
    """The DICOM Upper Layer service provider (DUL)."""

    socket: Socket


class AssociationControl(Protocol):
    """The association control service (ACSE)."""

    def send_reject(self, result: int, source: int, reason: int) -> None:
        """Sends an A-ASSOCIATE-RJ with the codes of PS3.8 table 9-21."""


class Association(Protocol):
    """An association that a peer has requested."""

    requestor: Requestor
    ae: LocalEntity
    dul: UpperLayer
    acse: AssociationControl

    def kill(self) -> None:
        """Ends the association's threads; nothing more is sent."""


class AssociationEvent(Protocol):
    """EVT_REQUESTED, EVT_REJECTED."""

    assoc: Association


class StoreRequest(Protocol):
    """The C-STORE request primitive."""

    AffectedSOPClassUID: str
    AffectedSOPInstanceUID: str
    DataSet: Spool


class AcceptedContext(Protocol):
    """The presentation context in which a message came."""

    abstract_syntax: str
    transfer_syntax: str


class StoreEvent(AssociationEvent, Protocol):
    """EVT_C_STORE."""

    request: StoreRequest
    context: AcceptedContext
