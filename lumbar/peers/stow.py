"""Sends by STOW-RS (PS3.18 section 10.5). What counts is what the answer says of the instance."""

from pathlib import Path
from uuid import uuid4

from lumbar.peers import qido
from lumbar.peers.asking import holds
from lumbar.peers.deadline import Deadline
from lumbar.peers.destinations import DicomwebDestination
from lumbar.peers.files import read_reference, reading
from lumbar.peers.http_requests import Answer, post, raise_unavailable
from lumbar.peers.outcomes import (
    DUPLICATE,
    SUCCESS,
    ProcessingFailed,
    Refused,
    Sent,
    Unintelligible,
    Unreachable,
    interpret_status,
    is_warning,
)
from lumbar.peers.store_response import Failed, Stored, read_store_response

_BARE_SUCCESS = (201, 204)  # that need not say what was stored
_CONCERN_THE_INSTANCE = (400, 413, 415, 422)


def send(
    destination: DicomwebDestination, deadline: Deadline, path: Path, not_after: float | None = None
) -> Sent:
    """Sends one Part-10 file.

    It is stored if the answer lists it as stored, or if the server lists it when it is asked
    because the answer does not say: a success without a word of the instance, a duplicate, a
    conflict without a reason. 201 and 204 also count where the server does not list it (yet).

    Raises:
        NotSent: see ``lumbar.peers.outcomes``; among them ``TooLate``, checked before every part
            of the POST.
        Refused: the server does not accept this instance.
        Permanent: the file is not DICOM.
    """
    reference = read_reference(path)
    with reading(path) as file:
        content = file.read()
    answer = _post(destination, content, deadline, not_after)
    response = read_store_response(answer.body, reference.sop_instance_uid)
    if isinstance(response, Stored) and answer.status <= 299:
        return _stored(response, answer.status)
    failed = response if isinstance(response, Failed) else None
    if failed is None:
        _raise_for_status(destination, answer.status)
    elif failed.reason is not None and not _contradicts(failed.reason):
        return interpret_status(failed.reason, destination.name)

    if holds_it := holds(qido.search_of(destination, deadline), reference):
        return Sent(str(answer.status), _warning(answer.status, failed), listed=True)
    unlisted = "cannot be asked" if holds_it is None else "does not list it"
    if failed and failed.reason == DUPLICATE:
        if holds_it is None:
            return interpret_status(DUPLICATE, destination.name)
        return Sent(f"{DUPLICATE:04X}", "it was already stored, and is not listed (yet)")
    return _unlisted(destination, answer.status, failed, unlisted)


def _post(
    destination: DicomwebDestination, content: bytes, deadline: Deadline, not_after: float | None
) -> Answer:
    boundary = uuid4().hex
    headers = {
        "Accept": "application/dicom+json, application/dicom+xml;q=0.5",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
    }
    part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = part + content + f"\r\n--{boundary}--\r\n".encode()
    return post(destination, "/studies", deadline, headers, body, not_after)


def _stored(response: Stored, status: int) -> Sent:
    if response.warning is not None:
        return Sent(str(status), f"stored, with warning {response.warning:04X}")
    return Sent(str(status), "stored, with an unspecified warning" if status == 202 else None)


def _contradicts(reason: int) -> bool:
    """Whether a failure's reason is none: a duplicate, a warning, or success."""
    return reason in (SUCCESS, DUPLICATE) or is_warning(reason)


def _raise_for_status(destination: DicomwebDestination, status: int) -> None:
    """Raises the error of a status whose answer says nothing of the instance; none for 2xx or 409.

    Raises:
        NotSent: the status concerns the server.
        Unreachable: the URL is not the DICOMweb root.
        Refused: it concerns the instance.
    """
    if 200 <= status <= 299 or status == 409:
        return
    raise_unavailable(destination, status)
    if status in _CONCERN_THE_INSTANCE:
        why = "it is too large" if status == 413 else "its log says why"
        raise Refused(f"{destination.name} refused it (HTTP {status}); {why}")
    raise Unreachable(
        f"{destination.name} does not offer to store there (HTTP {status}); "
        "check that its URL is the DICOMweb root"
    )


def _warning(status: int, failed: Failed | None) -> str | None:
    """What is odd about an answer, although the server lists the instance."""
    if status in _BARE_SUCCESS and failed is None:
        return None
    if failed and failed.reason == DUPLICATE:
        return "it was already stored"
    return f"the answer (HTTP {status}) does not say that it is stored"


def _unlisted(
    destination: DicomwebDestination, status: int, failed: Failed | None, unlisted: str
) -> Sent:
    """The outcome where neither the answer nor a query says that it is stored.

    Raises:
        ProcessingFailed: the server failed to store it, for no stated reason.
        Unintelligible: a success that says nothing of it.
    """
    name = destination.name
    if failed or status == 409:
        raise ProcessingFailed(
            f"{name} failed to store it and gives no reason (HTTP {status}); its log says why"
        )
    if status in _BARE_SUCCESS:
        return Sent(str(status), f"the server does not say what it stored, and {unlisted}")
    raise Unintelligible(
        f"{name} does not say whether it stored the instance (HTTP {status}), and {unlisted}; "
        "check that its URL is the DICOMweb root, and whether it requires a login"
    )
