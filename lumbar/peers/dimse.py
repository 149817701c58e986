"""Sends and verifies by DIMSE: C-STORE and C-ECHO.

Files are sent as they are, in their own transfer syntax. Only a report in Explicit VR Little Endian
is encoded again, in Implicit VR, for a peer that accepts nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lumbar.dicom.part10 import read_file_meta
from lumbar.errors import LumbarError
from lumbar.peers import find
from lumbar.peers.asking import holds
from lumbar.peers.association import MAX_CONTEXTS, Association
from lumbar.peers.commands import C_ECHO, C_STORE, Request, Response, respond
from lumbar.peers.deadline import Deadline, require_before
from lumbar.peers.destinations import DimseDestination
from lumbar.peers.files import read_reference, reading
from lumbar.peers.outcomes import (
    DUPLICATE,
    SUCCESS,
    Refused,
    Sent,
    Unintelligible,
    cannot_understand,
    interpret_status,
    is_warning,
)
from lumbar.peers.pdus import Encoding


@dataclass(frozen=True)
class FailedFile:
    """A file that was not sent, and the reason in one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class _Instance:
    """A Part-10 file, by its meta information."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int  # of the data set

    @property
    def encoding(self) -> Encoding:
        return self.sop_class_uid, self.transfer_syntax

    @property
    def request(self) -> Request:
        return Request(C_STORE, self.sop_class_uid, self.sop_instance_uid)


def echo(destination: DimseDestination, deadline: Deadline) -> None:
    """Verifies the connection by C-ECHO.

    Raises:
        Unreachable: no association, or no response in time.
        Unintelligible: the response is malformed.
        Refused: the peer does not offer verification, or reports a failure.
    """
    with Association(destination, find.VERIFICATION, deadline) as association:
        ((sop_class, _), context), *_ = association.accepted.items()
        status = respond(association, destination.name, context, Request(C_ECHO, sop_class)).status
    if status:
        raise Refused(f"{destination.name} answered the C-ECHO with status {status:04X}")


def send(
    destination: DimseDestination, deadline: Deadline, path: Path, not_after: float | None = None
) -> Sent:
    """Sends one Part-10 file by C-STORE.

    A status Cxxx is retried once, immediately: some peers return C211 for a temporary error. After
    a duplicate (0111), or a success that names another instance, the peer is asked.

    Raises:
        NotSent: see ``lumbar.peers.outcomes``; among them ``TooLate``, checked just before the
            C-STORE.
        Refused: the peer does not accept this instance.
        Permanent: the file is not DICOM.
    """
    instance = _read(path)
    encodings = [instance.encoding]
    if instance.transfer_syntax == ExplicitVRLittleEndian:
        encodings.append((instance.sop_class_uid, ImplicitVRLittleEndian))
    for last in (False, True):
        with Association(destination, encodings, deadline) as association:
            encoding = next(encoding for encoding in encodings if encoding in association.accepted)
            with _data_set(instance, encoding) as content:
                context = association.accepted[encoding]
                require_before(not_after, destination.name)
                response = respond(
                    association, destination.name, context, instance.request, content
                )
        if last or not cannot_understand(response.status):
            break
    if response.status == DUPLICATE or _names_another(response, instance):
        return _found_by_query(destination, instance, response.status, deadline)
    return interpret_status(response.status, destination.name)


def send_files(
    destination: DimseDestination,
    paths: Sequence[Path],
    advance: Callable[[], None] = lambda: None,
    *,
    timeout_s: float = 30,
    limit_s: float = 600,
) -> list[FailedFile]:
    """Sends many files by C-STORE over one association; returns those that failed.

    ``advance`` is called after each file, ``timeout_s`` applies to each wait, and ``limit_s`` to
    each file.

    Raises:
        Unreachable: no association could be established.
        Refused: the peer accepts none of the proposed presentation contexts.
    """
    failed: list[FailedFile] = []
    instances: list[_Instance] = []
    for path in paths:
        try:
            instances.append(_read(path))
        except LumbarError as error:
            failed.append(FailedFile(path, str(error)))
            advance()
    if not instances:
        return failed
    deadline = Deadline(destination.name, timeout_s, limit_s)
    proposed = list(dict.fromkeys(instance.encoding for instance in instances))[:MAX_CONTEXTS]
    connection_error: LumbarError | None = None
    with Association(destination, proposed, deadline) as association:
        for instance in instances:
            deadline.restart()
            try:
                if connection_error:
                    raise connection_error
                _require_proposed(instance.encoding, proposed)
                interpret_status(_store(association, instance, destination), destination.name)
            except LumbarError as error:
                if not association.established:
                    connection_error = connection_error or error
                failed.append(FailedFile(instance.path, str(error)))
            advance()
    return failed


def _read(path: Path) -> _Instance:
    """The file's meta information; see ``reading``."""
    with reading(path) as file:
        meta = read_file_meta(file)
        sop_class, instance = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        syntax = meta.TransferSyntaxUID
        return _Instance(path, str(sop_class), str(instance), str(syntax), file.tell())


@contextmanager
def _data_set(instance: _Instance, encoding: Encoding) -> Iterator[BinaryIO]:
    """The file's data set, to be read as it is to be sent; see ``reading``."""
    with reading(instance.path) as file:
        if encoding == instance.encoding:
            file.seek(instance.offset)
            yield file
        else:
            yield _in_implicit_vr(file)


def _in_implicit_vr(file: BinaryIO) -> BinaryIO:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, dcmread(file))
    return BytesIO(buffer.getvalue())


def _names_another(response: Response, instance: _Instance) -> bool:
    """Whether it says that another instance was stored."""
    stored = response.status == SUCCESS or is_warning(response.status)
    return stored and response.sop_instance_uid not in ("", instance.sop_instance_uid)


def _found_by_query(
    destination: DimseDestination, instance: _Instance, status: int, deadline: Deadline
) -> Sent:
    """The outcome where the response does not say enough: stored if the peer lists it.

    A duplicate that it does not list yet was stored a moment ago, or another's report has its UID.

    Raises:
        Unintelligible: it reports the success of another instance, and does not list this one.
    """
    listed = holds(find.search_of(destination, deadline), read_reference(instance.path))
    if listed:
        warning = "it was already stored" if status == DUPLICATE else "the response names another"
        return Sent(f"{status:04X}", warning, listed=True)
    if status != DUPLICATE:
        raise Unintelligible(
            f"{destination.name} answered that it stored another instance; its log says why"
        )
    if listed is None:
        return interpret_status(status, destination.name)
    return Sent(f"{status:04X}", "it was already stored, and is not listed (yet)")


def _require_proposed(encoding: Encoding, proposed: Sequence[Encoding]) -> None:
    """Checks that the association has a presentation context for the encoding.

    Raises:
        Refused: it has none, as one association has at most ``MAX_CONTEXTS``.
    """
    if encoding not in proposed:
        raise Refused("too many kinds of files for one association; send them in smaller groups")


def _store(association: Association, instance: _Instance, destination: DimseDestination) -> int:
    """The status of one C-STORE.

    Raises:
        Unreachable: the association is lost, or there is no response in time.
        Unintelligible: the response is none to this request.
        FileUnavailable: the file cannot be read.
        Refused: the peer has not accepted a context for the file.
    """
    if instance.encoding not in association.accepted:
        sop_class, transfer_syntax = map(UID, instance.encoding)
        raise Refused(
            f"{destination.name} does not accept {sop_class.name} in {transfer_syntax.name}"
        )
    with _data_set(instance, instance.encoding) as content:
        response = respond(
            association,
            destination.name,
            association.accepted[instance.encoding],
            instance.request,
            content,
        )
    if _names_another(response, instance):
        raise Unintelligible(
            f"{destination.name} answered that it stored another instance; its log says why"
        )
    return response.status
