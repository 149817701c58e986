"""The DICOM receiver: C-ECHO and C-STORE of MR images (PS3.4 annexes A and B). It writes rows and rings no bell.

A sender is told 0x0000 only after ``db.intake.take_in`` has returned.
"""

import socket
from types import TracebackType
from typing import Any, Self

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from db.intake import IMAGE_CLASSES, Arrival, HeaderDisagrees, take_in
from db.session import Database
from lumbar.dicom.pixels import TRANSFER_SYNTAXES
from lumbar.errors import NotDicom, Transient, WrongSetting
from lumbar.settings import Settings
from lumbar.store.files import Store

log = structlog.get_logger()

STORED = 0x0000
OUT_OF_RESOURCES = 0xA700
HEADER_DISAGREES = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110

MAXIMUM_PDU = 131072  # bytes; fewer, larger PDUs than pynetdicom's 16 KiB


class Receiver:
    """A listening storage SCP; a context manager that stops it."""

    def __init__(self, settings: Settings, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        _config.LOG_REQUEST_IDENTIFIERS = False  # they hold patient data
        _config.LOG_RESPONSE_IDENTIFIERS = False
        self._ae = ae = AE(ae_title=settings.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(settings.known_aes)
        ae.maximum_associations = settings.maximum_associations
        ae.maximum_pdu_size = MAXIMUM_PDU
        ae.network_timeout = settings.network_timeout_s
        ae.add_supported_context(Verification)
        for storage_class in IMAGE_CLASSES:
            ae.add_supported_context(storage_class, list(TRANSFER_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, _answer_at_once),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_REJECTED, _note_rejected),
        ]
        try:
            server = ae.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise WrongSetting(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                "set LUMBAR_PORT to a free port, and LUMBAR_HOST to an address of this machine"
            ) from error
        assert server is not None  # noqa: S101 - it is None only for block=True
        self.port: int = server.server_address[1]
        log.info("receiver.listening", host=settings.host, port=self.port, ae_title=settings.ae_title)

    def _on_store(self, event: evt.Event) -> int:
        request: Any = event.request
        arrival = Arrival(
            encoded=request.DataSet.getvalue(),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            source=str(event.assoc.requestor.ae_title).strip(),
        )
        try:
            take_in(self._database, self._store, arrival)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ae.shutdown()  # open associations are aborted: nothing in them was acknowledged
        log.info("receiver.stopped")


def _answer_at_once(event: Any) -> None:
    """Without this, Nagle's algorithm and delayed acknowledgements cost 40 ms an instance."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _note_rejected(event: evt.Event) -> None:
    log.warning(
        "association.rejected", calling=repr(event.assoc.requestor.ae_title), peer=event.assoc.requestor.address
    )


def _refuse(status: int, arrival: Arrival, error: Exception) -> int:
    log.warning("instance.refused", status=f"{status:04X}", source=arrival.source, why=str(error))
    return status
