"""The DICOM receiver: C-ECHO and C-STORE of MR images (PS3.4 annexes A and B). It writes rows and rings no bell.

A sender is told 0x0000 only after ``db.ingest.ingest`` has returned.
"""

import logging
import sys
from threading import Thread
from types import TracebackType
from typing import Any, Self, cast

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from db.audit import Auditor
from db.database import Database
from db.ingest import IMAGE_CLASSES, Arrival, HeaderDisagrees, ingest
from lumbar.dicom.pixels import TRANSFER_SYNTAXES
from lumbar.errors import NotDicom, Transient, WrongSetting
from lumbar.settings import Settings
from lumbar.store.files import Store, StoreFull
from scp.admission import Connection, Door
from scp.limits import MAXIMUM_PDU, Limits, Spool
from scp.server import Server
from scp.tls import server_context

log = structlog.get_logger()

STORED = 0x0000
OUT_OF_RESOURCES = 0xA700
HEADER_DISAGREES = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
NOT_SUPPORTED = 0x0122

UNDERSTOOD_WITHIN_S = (
    3.0  # an association request is whole when pynetdicom gets it: else it is none
)
SECURITY = (
    "address not allowed",
    "TLS handshake failed",
)  # of the refusals, those that an auditor asks for
TOO_MANY = (
    0x02,
    0x03,
    0x02,
)  # rejected for now, by the presentation layer: local limit exceeded (PS3.8 table 9-21)


class Receiver:
    """A listening storage SCP; a context manager that stops it."""

    def __init__(self, settings: Settings, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._refuse_above = settings.disk_refuse_above
        self._auditor = Auditor(database)
        removed = store.remove_orphans()
        self._door = Door(settings.maximum_associations, settings.known_addresses)
        self._server = self._listening(settings)
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

    def _listening(self, settings: Settings) -> Server:
        tls = None
        if settings.tls_certificate and settings.tls_key:
            tls = server_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_C_STORE, self._on_store),
        ]
        try:
            server: Any = _entity(settings).make_server(
                (settings.host, settings.port), evt_handlers=handlers, server_class=Server
            )
        except OSError as error:
            raise WrongSetting(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                "set LUMBAR_PORT to a free port, and LUMBAR_HOST to an address of this machine"
            ) from error
        server.door = self._door
        server.tls = tls
        server.refused = self._on_refused
        server.limits = Limits(
            pdu_s=settings.network_timeout_s,
            association_s=settings.association_limit_s,
            instance=settings.maximum_instance_mib * 2**20,
            spool=self._store.staging_folder(),
        )
        return cast(Server, server)

    def _on_refused(self, connection: Connection, why: str) -> None:
        if why in SECURITY:
            self._auditor.note("connection.refused", "", why, connection.peer)

    def _on_request(self, event: Any) -> None:
        connection: Connection = event.assoc.dul.socket.connection
        if not self._door.associate(connection):
            event.assoc.acse.send_reject(*TOO_MANY)
            self._reject(event.assoc, "too many associations")
            event.assoc.kill()

    def _on_rejected(self, event: Any) -> None:
        called = str(event.assoc.requestor.primitive.called_ae_title).strip()
        known = called == event.assoc.ae.ae_title.strip()
        self._reject(event.assoc, f"{'calling' if known else 'called'} AE title not recognised")

    def _reject(self, association: Any, why: str) -> None:
        calling = str(association.requestor.primitive.calling_ae_title).strip()
        peer = association.dul.socket.connection.peer
        log.warning("association.rejected", calling=calling, peer=peer, why=why)
        self._auditor.note("association.rejected", calling, why, peer)

    def _on_store(self, event: Any) -> int:
        connection: Connection = event.assoc.dul.socket.connection
        connection.busy = True
        try:
            return self._ingest(event)
        finally:
            connection.busy = False

    def _ingest(self, event: Any) -> int:
        request: Any = event.request
        spool: Spool = request.DataSet
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
        except Exception as error:  # noqa: BLE001 - a fault of ours; its text may hold the patient's data
            log.error("receiver.fault", source=arrival.source, error=type(error).__name__)
            return PROCESSING_FAILURE
        return STORED

    def _require_room(self, failure: OSError | None) -> None:
        """Raises StoreFull before the disk is full: what is acknowledged must still be registered and read."""
        if failure is not None:
            raise StoreFull(f"the disk refused a part of the image ({failure.strerror})")
        if (fill := self._store.fill_ratio()) > self._refuse_above:
            raise StoreFull(
                f"the disk is {fill:.0%} full; LUMBAR_DISK_REFUSE_ABOVE is {self._refuse_above:.0%}"
            )

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


def _entity(settings: Settings) -> AE:
    _config.LOG_REQUEST_IDENTIFIERS = False  # they hold patient data
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(
        logging.CRITICAL
    )  # our events say what happened; its texts quote values
    ae = AE(ae_title=settings.ae_title)
    ae.require_called_aet = True
    ae.require_calling_aet = list(settings.known_aes)
    ae.maximum_associations = sys.maxsize  # the door counts them
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.network_timeout = settings.network_timeout_s
    ae.acse_timeout = UNDERSTOOD_WITHIN_S
    ae.add_supported_context(Verification)
    for storage_class in IMAGE_CLASSES:
        ae.add_supported_context(storage_class, list(TRANSFER_SYNTAXES))
    return ae


def _refuse(status: int, arrival: Arrival, error: Exception) -> int:
    log.warning("instance.refused", status=f"{status:04X}", source=arrival.source, why=str(error))
    return status
