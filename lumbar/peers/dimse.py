"""Sends by DIMSE: C-ECHO and C-STORE, with one association per call.

Files are sent as they are, in their own transfer syntax: nothing is decoded or encoded again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn, cast

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
from lumbar.peers.outcomes import DUPLICATE, Delivered, Refused, Unreachable, interpret_status

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext
    from pynetdicom.transport import AssociationSocket

# Stream from the file instead of decoding and encoding the dataset.
_config.STORE_SEND_CHUNKED_DATASET = True
_MAX_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers from 1 to 255
_UNIQUE_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

Encoding = tuple[UID, UID]  # SOP class, transfer syntax


@dataclass(frozen=True)
class FailedFile:
    """A file that was not sent, and the reason in one line."""

    path: Path
    reason: str


def echo(destination: DimseDestination, *, timeout_s: float = 10) -> None:
    """Verifies the connection by C-ECHO. ``timeout_s`` applies to each wait, not to their sum.

    Raises:
        Unreachable: no association, or no response in time.
        Refused: the peer does not offer verification, or reports a failure.
    """
    with _association(destination, [build_context(Verification)], timeout_s) as association:
        status = _status(association.send_c_echo(), destination)
    if status:
        raise Refused(f"{destination.name} answered the C-ECHO with status {status:04X}")


def send(destination: DimseDestination, content: bytes, *, timeout_s: float = 30) -> Delivered:
    """Sends one Part-10 file by C-STORE. ``timeout_s`` applies to each wait, not to their sum.

    A status Cxxx is retried once, immediately: some peers return C211 for a temporary error.

    Raises:
        Unreachable: no association, or no response in time.
        Busy: the peer is out of resources.
        ProcessingFailed: the peer could not store it.
        NotAuthorised: the peer does not permit it.
        Refused: the peer does not accept this instance, or reports a duplicate that it does not
            list.
    """
    header = dcmread(BytesIO(content), specific_tags=list(_UNIQUE_KEYS))
    with TemporaryDirectory(prefix="lumbar-") as folder:
        path = Path(folder) / "instance.dcm"
        path.write_bytes(content)
        for last in (False, True):
            with _association(destination, _contexts([_encoding(path)]), timeout_s) as association:
                status = _store(association, path, destination)
            if last or not 0xC000 <= status <= 0xCFFF:
                break
    if status == DUPLICATE:
        return _confirm_duplicate(destination, header, timeout_s)
    return interpret_status(status, destination.name)


def send_files(
    destination: DimseDestination,
    paths: Sequence[Path],
    advance: Callable[[], None] = lambda: None,
    *,
    timeout_s: float = 30,
) -> list[FailedFile]:
    """Sends many files by C-STORE over one association; returns those that failed.

    ``advance`` is called after each file.

    Raises:
        Unreachable: no association could be established.
        Refused: the peer accepts none of the proposed presentation contexts.
    """
    failed: list[FailedFile] = []
    encodings: dict[Path, Encoding] = {}
    for path in paths:
        try:
            encodings[path] = _encoding(path)
        except LumbarError as error:
            failed.append(FailedFile(path, str(error)))
            advance()
    if not encodings:
        return failed
    proposed = list(dict.fromkeys(encodings.values()))[:_MAX_CONTEXTS]
    connection_error: Unreachable | None = None
    with _association(destination, _contexts(proposed), timeout_s) as association:
        for path, encoding in encodings.items():
            try:
                if connection_error:
                    raise connection_error
                _require_proposed(encoding, proposed)
                interpret_status(_store(association, path, destination), destination.name)
            except LumbarError as error:
                connection_error = error if isinstance(error, Unreachable) else connection_error
                failed.append(FailedFile(path, str(error)))
            advance()
    return failed


def _encoding(path: Path) -> Encoding:
    """SOP class and transfer syntax, from the file meta information.

    Raises:
        Permanent: the file has none, or cannot be read.
    """
    try:
        meta = read_file_meta_info(path)
        return meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError, OSError, EOFError):
        raise Permanent(f"{path.name} is not a readable DICOM file") from None


def _require_proposed(encoding: Encoding, proposed: Sequence[Encoding]) -> None:
    """Checks that the association has a presentation context for the encoding.

    Raises:
        Refused: it has none, as one association has at most ``_MAX_CONTEXTS``.
    """
    if encoding not in proposed:
        raise Refused("too many kinds of files for one association; send them in smaller groups")


def _contexts(encodings: Sequence[Encoding]) -> list["PresentationContext"]:
    """One context for each encoding, so that the peer accepts or rejects each by itself."""
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in encodings]


class _Entity(AE):
    """Keeps the socket and the rejection, which pynetdicom 3.0 drops.

    pynetdicom does not close the socket of a rejected or broken connection, and takes a rejection
    that is quickly followed by the end of the connection for no response at all.
    """

    opened: socket | None = None
    rejection: str | None = None  # the reason given in the A-ASSOCIATE-RJ

    def _create_socket(self, *arguments: Any) -> "AssociationSocket":
        connection = super()._create_socket(*arguments)
        self.opened = connection.socket
        return connection

    def record_rejection(self, event: "Event") -> None:
        """EVT_PDU_RECV: records the reason of an A-ASSOCIATE-RJ."""
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu.reason_str


@contextmanager
def _association(
    destination: DimseDestination, contexts: list["PresentationContext"], timeout_s: float
) -> Iterator["Association"]:
    """An established association; released at the end, or aborted after an exception.

    Raises:
        Unreachable: no association could be established.
        Refused: the peer accepts none of the contexts.
    """
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
                (evt.EVT_CONN_OPEN, disable_nagle),
                (evt.EVT_PDU_RECV, entity.record_rejection),
            ],
        )
    except OSError:
        raise Unreachable(
            f"{destination.name}: the host {destination.host} is not known; check its name"
        ) from None
    keep_responses(association)
    try:
        if not association.is_established:
            _raise_association_failure(association, entity.rejection, destination)
        yield association
        association.release()
    finally:
        if association.is_established:
            association.abort()
        if entity.opened:
            entity.opened.close()


def keep_responses(association: "Association") -> None:
    """Lets every response reach the call that waits for it.

    pynetdicom 3.0 pauses the association's thread before a request, but that thread may then still
    take one message, which it drops because it expects requests only.
    """

    serve_request = association._serve_request

    def put_back(message: Any, context_id: int) -> None:
        if message.is_valid_request:
            serve_request(message, context_id)
        else:
            association.dimse.msg_queue.put((context_id, message))

    association._serve_request = put_back  # type: ignore[assignment,method-assign]


def disable_nagle(event: "Event") -> None:
    """EVT_CONN_OPEN: Nagle's algorithm with delayed acknowledgements costs 40 ms per message."""
    stream = cast("AssociationSocket", event.assoc.dul.socket).socket
    cast(socket, stream).setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


def _raise_association_failure(
    association: "Association", rejection: str | None, destination: DimseDestination
) -> NoReturn:
    """Raises the error that states why there is no association.

    Raises:
        Unreachable: the peer rejected it, or did not respond.
        Refused: the peer accepted the association but none of its contexts.
    """
    address = f"{destination.host}:{destination.port}"
    peer = f"{destination.name} ({destination.called_ae_title} at {address})"
    if rejection:
        raise Unreachable(
            f"{peer} rejected the association: {rejection}; check the AE titles on both sides"
        )
    if association.acceptor.primitive is not None:
        raise Refused(f"{peer} accepts none of the proposed SOP classes: {_proposed(association)}")
    raise Unreachable(f"{peer} does not answer; check host, port and that it is running")


def _proposed(association: "Association") -> str:
    contexts = association.requestor.requested_contexts
    names = [cast(UID, context.abstract_syntax).name for context in contexts]
    return ", ".join(dict.fromkeys(names))


def _store(association: "Association", path: Path, destination: DimseDestination) -> int:
    """The status of one C-STORE.

    Raises:
        Unreachable: the association is lost, or there is no response in time.
        Refused: the peer has not accepted a context for the file.
    """
    if not association.is_established:
        raise Unreachable(f"the association with {destination.name} was lost; try again")
    try:
        response = association.send_c_store(path)
    except ValueError:
        sop_class, transfer_syntax = _encoding(path)
        raise Refused(
            f"{destination.name} does not accept {sop_class.name} in {transfer_syntax.name}"
        ) from None
    return _status(response, destination)


def _status(response: Dataset, destination: DimseDestination) -> int:
    """The status of a response.

    Raises:
        Unreachable: there is no response; pynetdicom then returns an empty dataset.
    """
    if "Status" not in response:
        raise Unreachable(
            f"{destination.name} did not respond in time, or the connection was lost; try again"
        )
    return int(response.Status)


def _confirm_duplicate(
    destination: DimseDestination, header: Dataset, timeout_s: float
) -> Delivered:
    """After 0111: delivered if the peer lists the instance, or cannot be queried.

    Raises:
        Refused: the peer can be queried and does not list it.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    for keyword in _UNIQUE_KEYS:
        setattr(query, keyword, header[keyword].value)
    context = build_context(StudyRootQueryRetrieveInformationModelFind)
    try:
        with _association(destination, [context], timeout_s) as association:
            responses = list(
                association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
            )
    except LumbarError:
        return Delivered("0111", "the peer reports a duplicate and cannot be queried about it")
    if not any(identifier is not None for _, identifier in responses):
        raise Refused(
            f"{destination.name} reports a duplicate (status 0111) but does not list the instance"
        )
    return Delivered("0111", "it was already stored")
