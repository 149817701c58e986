"""The DICOM receiver: C-ECHO and C-STORE of a study's objects (PS3.4 annexes A and B).

A C-STORE is answered with success (0x0000) only once the file is durable in the store and its
header was checked (``scp.storage``); another process writes the rows behind it. Any other outcome
is answered with a failure status, or the association ends without an answer; sending the instance
again is safe.
"""

import resource
from contextlib import suppress

from db.audit import dicom_node
from db.audit_writer import AuditWriter, Line
from db.database import Database
from lumbar.audit_messages import Outcome
from lumbar.closing import Closing
from lumbar.errors import WrongSetting
from lumbar.log import get_logger
from lumbar.settings import Settings
from lumbar.store.files import Store
from scp.admission import MAX_PENDING, Admission, Connection
from scp.association import Association
from scp.association_request import AssociationRequest, decode, printable_calling_ae_title
from scp.backlog import Backlog
from scp.negotiation import LOCAL_LIMIT_EXCEEDED, Acceptor, Rejected
from scp.pdu_stream import ConnectionEnded, Limits, PduStream, send_abort
from scp.server import Server
from scp.sop_classes import accepted_syntaxes
from scp.storage import Storage, StorageService
from scp.tls import server_context

log = get_logger()

MANY_DESCRIPTORS = 4096  # more are not needed
# The refused connections that go into the audit trail; the others are only logged.
AUDITED_REFUSALS = ("address not allowed", "TLS handshake failed")


class Receiver(Closing):
    """A listening storage SCP; a context manager that stops it.

    Raises:
        WrongSetting: It cannot listen on the address and port, or a TLS file cannot be used.
    """

    def __init__(self, settings: Settings, database: Database, store: Store) -> None:
        self._audit = AuditWriter(database)
        self._admission = Admission(
            settings.maximum_associations, settings.known_addresses, _pending_limit()
        )
        self._limits = Limits(settings.network_timeout_s, settings.association_limit_s)
        supported = accepted_syntaxes(settings.extra_sop_classes)
        self._acceptor = Acceptor(settings.ae_title, settings.known_aes, supported)
        self._storage = Storage(
            store,
            database,
            Backlog(store, settings.maximum_unregistered),
            settings.maximum_instance_mib * 2**20,
            settings.disk_refuse_above,
        )
        self._server = self._create_server(settings)
        self.port = self._server.port
        self._server.start(self._serve, self._on_refused)
        log.info(
            "receiver.listening",
            host=settings.host,
            port=self.port,
            ae_title=settings.ae_title,
            tls=self._server.tls is not None,
        )

    def _create_server(self, settings: Settings) -> Server:
        tls = None
        if settings.tls_certificate and settings.tls_key:
            tls = server_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        try:
            address = (settings.host, settings.port)
            return Server(address, self._admission, self._limits, tls)
        except OSError as error:
            raise WrongSetting(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                "set LUMBAR_PORT to a free port, and LUMBAR_HOST to an address of this machine"
            ) from error

    def _on_refused(self, connection: Connection, why: str) -> None:
        if why in AUDITED_REFUSALS:
            self._note("connection.refused", connection, why)

    def _note(self, event: str, connection: Connection, why: str) -> None:
        peer = dicom_node(connection.calling, connection.peer)
        line = Line(event, peer, Outcome.REFUSED, detail={"why": why})
        self._audit.note(line, stranger=True)

    def _serve(self, connection: Connection, content: bytes) -> None:
        """One connection, from its association request to its end."""
        connection.calling = printable_calling_ae_title(content)
        try:
            request = decode(content)
        except ValueError as error:
            send_abort(connection.socket)
            connection.close(str(error))
            return
        for oddity in request.oddities:
            connection.note(oddity)
        stream = PduStream(connection, self._limits)
        try:
            association = self._negotiate(connection, stream, request)
            association.serve()
        except Rejected as rejection:
            self._reject(connection, stream, rejection)
        except ConnectionEnded:
            pass  # the reason has been logged

    def _negotiate(
        self, connection: Connection, stream: PduStream, request: AssociationRequest
    ) -> Association:
        """Accepts the association.

        Raises:
            Rejected: there are too many, or an AE title is not known.
        """
        pdu, contexts = self._acceptor.accept(request)
        if not self._admission.associate(connection):  # only a known peer may displace another
            raise Rejected(LOCAL_LIMIT_EXCEEDED, "too many associations")
        stream.send(pdu)
        storage = StorageService(self._storage, request.calling_ae_title, connection)
        return Association(stream, contexts, storage, connection, request.maximum_length)

    def _reject(self, connection: Connection, stream: PduStream, rejection: Rejected) -> None:
        calling, why = connection.calling, str(rejection)
        connection.log.warn("association.rejected", peer=connection.peer, calling=calling, why=why)
        with suppress(ConnectionEnded):
            stream.send(rejection.pdu)
        self._note("association.rejected", connection, why)
        stream.wait_until_closed()

    def close(self) -> None:
        self._server.stop()
        self._audit.close()
        log.info("receiver.stopped")


def _pending_limit() -> int:
    """How many connections may wait for an association, given the descriptors of this process.

    As many as the system permits are asked for; a quarter of them may be such connections'.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MANY_DESCRIPTORS:
        soft = MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MANY_DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_PENDING if soft == resource.RLIM_INFINITY else max(1, min(MAX_PENDING, soft // 4))
