"""A small PACS to show results arriving: it takes every storage class and writes the files into a folder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any, Self

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import ThreadedAssociationServer

from lumbar.errors import Transient
from lumbar.peers.dimse import send_at_once


@dataclass(frozen=True)
class Received:
    """An instance that arrived, and its file."""

    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path


class SmallPacs:
    """Storage and Verification SCP on the loopback interface, for as long as the ``with`` block lasts."""

    def __init__(self, folder: Path, ae_title: str = "SMALLPACS", port: int = 0) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.received: list[Received] = []
        self._port = port
        self._changed = Condition()
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on; chosen by the system where 0 was asked for."""
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
            evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once), (evt.EVT_C_STORE, self._store)],
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

    def wait_for(self, predicate: Callable[[Received], bool], timeout_s: float) -> Received:
        """The first instance that fits, once it is there. Raises Transient if none comes in time."""

        def first() -> Received | None:
            return next((received for received in self.received if predicate(received)), None)

        with self._changed:
            found = self._changed.wait_for(first, timeout_s)
        if found is None:
            raise Transient(f"nothing that fits arrived at {self.ae_title} within {timeout_s:g} s")
        return found

    def _store(self, event: Any) -> int:
        """Named by a hash, for a UID from outside may be no file name."""
        uid = str(event.request.AffectedSOPInstanceUID)
        path = self.folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.dcm"
        partial = path.with_suffix(f".{id(event)}.part")
        partial.write_bytes(event.encoded_dataset())
        partial.replace(path)
        study = str(event.dataset.get("StudyInstanceUID", ""))
        with self._changed:
            self.received.append(Received(study, str(event.request.AffectedSOPClassUID), uid, path))
            self._changed.notify_all()
        return 0x0000
