"""Going out by DIMSE: C-ECHO and C-STORE, one association for each call.

Files are streamed as they stand, in their own transfer syntax: nothing is decoded or encoded again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from tempfile import TemporaryDirectory
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from lumbar.errors import LumbarError, Permanent
from lumbar.peers.destinations import DimseDestination
from lumbar.peers.outcomes import DUPLICATE, Delivered, Refused, Unreachable, judge

_config.STORE_SEND_CHUNKED_DATASET = (
    True  # stream from the file instead of decoding and encoding it
)
_MAX_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers from 1 to 255
_KEYS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

Kind = tuple[UID, UID]  # SOP class, transfer syntax


@dataclass(frozen=True)
class NotSent:
    """A file that did not arrive, and why in one line."""

    path: Path
    reason: str


def echo(destination: DimseDestination, *, timeout_s: float = 10) -> None:
    """C-ECHO. Raises Unreachable, or Refused where the peer does not offer verification."""
    with _association(destination, [build_context(Verification)], timeout_s) as association:
        status = _status(association.send_c_echo(), destination)
    if status:
        raise Refused(f"{destination.name} answered the echo with status {status:04X}")


def send(destination: DimseDestination, content: bytes, *, timeout_s: float = 30) -> Delivered:
    """C-STORE of one Part-10 file. ``timeout_s`` is for each wait, not for the whole.

    A status Cxxx gets one more try at once: some peers answer C211 for a passing fault.

    Raises Unreachable, Busy, ProcessingFailed, NotAuthorised; Refused.
    """
    header = dcmread(BytesIO(content), specific_tags=list(_KEYS))
    with TemporaryDirectory(prefix="lumbar-") as folder:
        path = Path(folder) / "instance.dcm"
        path.write_bytes(content)
        for last in (False, True):
            with _association(destination, _contexts([_kind(path)]), timeout_s) as association:
                status = _store(association, path, destination)
            if last or not 0xC000 <= status <= 0xCFFF:
                break
    if status == DUPLICATE:
        return _confirm(destination, header, timeout_s)
    return judge(status, destination.name)


def send_files(
    destination: DimseDestination,
    paths: Sequence[Path],
    advance: Callable[[], None] = lambda: None,
    *,
    timeout_s: float = 30,
) -> list[NotSent]:
    """C-STORE of many files over one association; ``advance`` is called after each. Returns those that failed.

    Raises Unreachable if there is no association to begin with.
    """
    failed: list[NotSent] = []
    kinds: dict[Path, Kind] = {}
    for path in paths:
        try:
            kinds[path] = _kind(path)
        except LumbarError as error:
            failed.append(NotSent(path, str(error)))
            advance()
    if not kinds:
        return failed
    offered = list(dict.fromkeys(kinds.values()))[:_MAX_CONTEXTS]
    lost: Unreachable | None = None
    with _association(destination, _contexts(offered), timeout_s) as association:
        for path, kind in kinds.items():
            try:
                if lost:
                    raise lost
                if kind not in offered:
                    raise Refused(
                        "too many kinds of files for one association; send them in smaller groups"
                    )
                judge(_store(association, path, destination), destination.name)
            except LumbarError as error:
                lost = error if isinstance(error, Unreachable) else lost
                failed.append(NotSent(path, str(error)))
            advance()
    return failed


def _kind(path: Path) -> Kind:
    """SOP class and transfer syntax by the file meta information. Raises Permanent."""
    try:
        meta = read_file_meta_info(path)
        return meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError, OSError, EOFError):
        raise Permanent(f"{path.name} is not a readable DICOM file") from None


def _contexts(kinds: Sequence[Kind]) -> list[Any]:
    """One context for each kind, so that the peer accepts or refuses each encoding by itself."""
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in kinds]


class _Entity(AE):
    """Remembers what pynetdicom 3.0 forgets.

    It drops the socket of a refused or broken connection without closing it; and a rejection that comes fast, with
    the peer hanging up after it, looks to it like no answer.
    """

    opened: socket | None = None
    rejection: str | None = None

    def _create_socket(self, *arguments: Any) -> Any:
        connection = super()._create_socket(*arguments)
        self.opened = connection.socket
        return connection

    def note_rejection(self, event: Any) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu.reason_str


@contextmanager
def _association(
    destination: DimseDestination, contexts: list[Any], timeout_s: float
) -> Iterator[Any]:
    entity = _Entity(ae_title=destination.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = timeout_s
    entity.network_timeout = entity.connection_timeout = timeout_s
    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.called_ae_title,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, send_at_once),
                (evt.EVT_PDU_RECV, entity.note_rejection),
            ],
        )
    except OSError:
        raise Unreachable(
            f"{destination.name}: the host {destination.host} is not known; check its name"
        ) from None
    try:
        if not association.is_established:
            raise _why_not(association, entity.rejection, destination)
        yield association
        association.release()
    finally:
        if association.is_established:
            association.abort()
        if entity.opened:
            entity.opened.close()


def send_at_once(event: Any) -> None:
    """Turn Nagle's algorithm off: with delayed acknowledgements it costs 40 ms a message."""
    event.assoc.dul.socket.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


def _why_not(association: Any, rejection: str | None, destination: DimseDestination) -> LumbarError:
    where = f"{destination.name} ({destination.called_ae_title} at {destination.host}:{destination.port})"
    if rejection:
        return Unreachable(
            f"{where} rejected the association: {rejection}; check the AE titles on both sides"
        )
    if association.acceptor.primitive is not None:
        return Refused(f"{where} accepts nothing of what was proposed: {_names(association)}")
    return Unreachable(f"{where} does not answer; check host, port and that it is running")


def _names(association: Any) -> str:
    return ", ".join(
        dict.fromkeys(cx.abstract_syntax.name for cx in association.requestor.requested_contexts)
    )


def _store(association: Any, path: Path, destination: DimseDestination) -> int:
    """The status of one C-STORE. Raises Unreachable, or Refused for an unaccepted context."""
    if not association.is_established:
        raise Unreachable(f"{destination.name} broke the association off; try again")
    try:
        answer = association.send_c_store(path)
    except ValueError:
        sop_class, transfer_syntax = _kind(path)
        raise Refused(
            f"{destination.name} does not accept {sop_class.name} in {transfer_syntax.name}"
        ) from None
    return _status(answer, destination)


def _status(answer: Dataset, destination: DimseDestination) -> int:
    if "Status" not in answer:
        raise Unreachable(f"{destination.name} gave no answer in time or broke off; try again")
    return int(answer.Status)


def _confirm(destination: DimseDestination, header: Dataset, timeout_s: float) -> Delivered:
    """After 0111: delivered if the peer lists the instance, or cannot be asked. Raises Refused if it does not."""
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    for keyword in _KEYS[1:]:
        setattr(query, keyword, header[keyword].value)
    context = build_context(StudyRootQueryRetrieveInformationModelFind)
    try:
        with _association(destination, [context], timeout_s) as association:
            answers = list(
                association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
            )
    except LumbarError:
        return Delivered("0111", "the peer says that it was stored already, and cannot be asked")
    if not any(identifier is not None for _, identifier in answers):
        raise Refused(
            f"{destination.name} says that it was stored already (status 0111), yet does not list it"
        )
    return Delivered("0111", "it was stored already")
