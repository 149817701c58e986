"""A minimal PACS for demonstrations: it accepts every storage class and writes to a folder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from threading import Condition
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import ThreadedAssociationServer

from lumbar.errors import Transient

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.transport import AssociationSocket


@dataclass(frozen=True)
class ReceivedInstance:
    """An instance that has arrived, and its file."""

    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path


class DemoPacs:
    """Storage and Verification SCP on the loopback interface; a context manager.

    ``port`` 0 lets the system choose one.
    """

    def __init__(self, folder: Path, ae_title: str = "DEMOPACS", port: int = 0) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.received: list[ReceivedInstance] = []
        self._port = port
        self._changed = Condition()
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._server.server_address[1]) if self._server else self._port

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        entity = AE(ae_title=self.ae_title)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        self._server = entity.start_server(
            ("127.0.0.1", self._port),
            block=False,
            evt_handlers=[(evt.EVT_CONN_OPEN, _disable_nagle), (evt.EVT_C_STORE, self._store)],
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server:
            self._server.shutdown()

    def wait_for(
        self, predicate: Callable[[ReceivedInstance], bool], timeout_s: float
    ) -> ReceivedInstance:
        """The first instance that satisfies the predicate; waits until it arrives.

        Raises:
            Transient: none arrived in time.
        """

        def first() -> ReceivedInstance | None:
            return next((instance for instance in self.received if predicate(instance)), None)

        with self._changed:
            instance = self._changed.wait_for(first, timeout_s)
        if instance is None:
            raise Transient(f"no such instance arrived at {self.ae_title} within {timeout_s:g} s")
        return instance

    def _store(self, event: "Event") -> int:
        """EVT_C_STORE. The file is named by a hash: a peer's UID is not safe as a file name."""
        request = cast("C_STORE", event.request)
        uid = str(request.AffectedSOPInstanceUID)
        path = self.folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.dcm"
        partial = path.with_suffix(f".{id(event)}.part")
        partial.write_bytes(event.encoded_dataset())
        partial.replace(path)
        study = str(event.dataset.get("StudyInstanceUID", ""))
        with self._changed:
            self.received.append(
                ReceivedInstance(study, str(request.AffectedSOPClassUID), uid, path)
            )
            self._changed.notify_all()
        return 0x0000


def _disable_nagle(event: "Event") -> None:
    """EVT_CONN_OPEN: Nagle's algorithm with delayed acknowledgements costs 40 ms per message."""
    stream = cast("AssociationSocket", event.assoc.dul.socket).socket
    cast(socket, stream).setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
