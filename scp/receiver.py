"""The DICOM receiver: C-ECHO and C-STORE of MR images (PS3.4 annexes A and B).

A C-STORE is answered with success (0x0000) only after ``db.ingest.ingest`` has returned: the file
is durable in the store and its rows are committed. That includes a duplicate, which changes
nothing, and an instance that is quarantined: its bytes are kept. Any other outcome is answered with
a failure status, or the association ends without an answer; sending the instance again is safe.

The receiver only writes rows and notifies nobody; other parts find in the database what is due.
"""

import logging
import sys
from threading import Thread
from types import TracebackType
from typing import Any, Self, cast

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from db.audit import Auditor
from db.database import Database
from db.ingest import IMAGE_CLASSES, Arrival, HeaderDisagrees, ingest
from lumbar.dicom.pixels import TRANSFER_SYNTAXES
from lumbar.errors import NotDicom, Transient, WrongSetting
from lumbar.log import get_logger
from lumbar.settings import Settings
from lumbar.store.files import Store, StoreFull
from scp.admission import Admission, Connection
from scp.limits import MAX_PDU_ANNOUNCED, Limits
from scp.pynetdicom_types import Association, AssociationEvent, StoreEvent
from scp.server import Server
from scp.tls import server_context

log = get_logger()

# Statuses of a C-STORE response (PS3.4 table B.2-1, PS3.7 annex C).
STORED = 0x0000
OUT_OF_RESOURCES = 0xA700
HEADER_DISAGREES = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
NOT_SUPPORTED = 0x0122

# pynetdicom gets a whole association request; one that it has not understood by then is malformed.
ACSE_TIMEOUT_S = 3.0
# The refused connections that go into the audit trail; the others are only logged.
AUDITED_REFUSALS = ("address not allowed", "TLS handshake failed")
# Rejected-transient, by the presentation layer: local limit exceeded (PS3.8 table 9-21).
LOCAL_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)


class Receiver:
    """A listening storage SCP; a context manager that stops it.

    Raises:
        WrongSetting: It cannot listen on the address and port, or a TLS file cannot be used.
    """

    def __init__(self, settings: Settings, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._refuse_above = settings.disk_refuse_above
        self._auditor = Auditor(database)
        removed = store.remove_orphans()
        self._admission = Admission(settings.maximum_associations, settings.known_addresses)
        self._server = self._create_server(settings)
        self.port: int = self._server.server_address[1]
        Thread(target=self._server.serve_forever, name="accept", daemon=True).start()
        log.info(
            "receiver.listening",
            host=settings.host,
            port=self.port,
            ae_title=settings.ae_title,
            tls=self._server.tls is not None,
            removed=removed,
        )

    def _create_server(self, settings: Settings) -> Server:
        tls = None
        if settings.tls_certificate and settings.tls_key:
            tls = server_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_C_STORE, self._on_store),
        ]
        try:
            server = cast(
                Server,
                _application_entity(settings).make_server(
                    (settings.host, settings.port), evt_handlers=handlers, server_class=Server
                ),
            )
        except OSError as error:
            raise WrongSetting(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                "set LUMBAR_PORT to a free port, and LUMBAR_HOST to an address of this machine"
            ) from error
        server.admission = self._admission
        server.tls = tls
        server.on_refused = self._on_refused
        server.limits = Limits(
            pdu_s=settings.network_timeout_s,
            association_s=settings.association_limit_s,
            dataset=settings.maximum_instance_mib * 2**20,
            spool=self._store.staging_folder(),
        )
        return server

    def _on_refused(self, connection: Connection, why: str) -> None:
        if why in AUDITED_REFUSALS:
            self._auditor.note("connection.refused", "", why, connection.peer)

    def _on_request(self, event: AssociationEvent) -> None:
        """EVT_REQUESTED, before pynetdicom checks the AE titles: rejects at the limit."""
        if not self._admission.associate(event.assoc.dul.socket.connection):
            event.assoc.acse.send_reject(*LOCAL_LIMIT_EXCEEDED)
            self._log_rejection(event.assoc, "too many associations")
            event.assoc.kill()

    def _on_rejected(self, event: AssociationEvent) -> None:
        """EVT_REJECTED: pynetdicom does not know one of the AE titles."""
        called = str(event.assoc.requestor.primitive.called_ae_title).strip()
        known = called == event.assoc.ae.ae_title.strip()
        title = "calling" if known else "called"
        self._log_rejection(event.assoc, f"{title} AE title not recognised")

    def _log_rejection(self, association: Association, why: str) -> None:
        calling = str(association.requestor.primitive.calling_ae_title).strip()
        peer = association.dul.socket.connection.peer
        log.warning("association.rejected", calling=calling, peer=peer, why=why)
        self._auditor.note("association.rejected", calling, why, peer)

    def _on_store(self, event: StoreEvent) -> int:
        """EVT_C_STORE: the status to answer with."""
        connection = event.assoc.dul.socket.connection
        connection.busy = True
        try:
            return self._ingest(event)
        finally:
            connection.busy = False

    def _ingest(self, event: StoreEvent) -> int:
        request, spool = event.request, event.request.DataSet
        arrival = Arrival(
            dataset=spool.rewound(),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            source=str(event.assoc.requestor.ae_title).strip(),
        )
        if event.context.abstract_syntax != arrival.sop_class_uid:
            return _refuse(
                NOT_SUPPORTED,
                arrival,
                HeaderDisagrees("the SOP class is not the presentation context's"),
            )
        try:
            self._require_room(spool.failure)
            ingest(self._database, self._store, arrival)
        except HeaderDisagrees as error:
            return _refuse(HEADER_DISAGREES, arrival, error)
        except NotDicom as error:
            return _refuse(CANNOT_UNDERSTAND, arrival, error)
        except Transient as error:
            return _refuse(OUT_OF_RESOURCES, arrival, error)
        except Exception as error:  # noqa: BLE001 - our own fault; its text may hold patient data
            log.error("receiver.fault", source=arrival.source, error=type(error).__name__)
            return PROCESSING_FAILURE
        return STORED

    def _require_room(self, failure: OSError | None) -> None:
        """Refuses before the disk is full: what is acknowledged must still be registered and read.

        Raises:
            StoreFull: The disk is fuller than it may be, or a write to it has failed.
        """
        if failure is not None:
            raise StoreFull(f"the disk refused a part of the image ({failure.strerror})")
        self._store.require_room(self._refuse_above)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
        log.info("receiver.stopped")


def _application_entity(settings: Settings) -> AE:
    _config.LOG_REQUEST_IDENTIFIERS = False  # they hold patient data
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
    # Our own events state what happened; pynetdicom's texts quote values of patients.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    ae = AE(ae_title=settings.ae_title)
    ae.require_called_aet = True
    ae.require_calling_aet = list(settings.known_aes)
    ae.maximum_associations = sys.maxsize  # Admission counts them
    ae.maximum_pdu_size = MAX_PDU_ANNOUNCED
    ae.network_timeout = settings.network_timeout_s
    ae.acse_timeout = ACSE_TIMEOUT_S
    ae.add_supported_context(Verification)
    for storage_class in IMAGE_CLASSES:
        ae.add_supported_context(storage_class, list(TRANSFER_SYNTAXES))
    return ae


def _refuse(status: int, arrival: Arrival, error: Exception) -> int:
    log.warning("instance.refused", status=f"{status:04X}", source=arrival.source, why=str(error))
    return status
