"""Sends by DICOMweb (STOW-RS, PS3.18 section 10.5), and tests a service by a query."""

from io import BytesIO
from typing import Any, NoReturn
from uuid import uuid4

import requests
from pydicom import dcmread
from requests.auth import AuthBase, HTTPBasicAuth

from lumbar.peers.destinations import DicomwebDestination
from lumbar.peers.outcomes import (
    Busy,
    Delivered,
    NotAuthorised,
    Refused,
    Unreachable,
    interpret_status,
)

# Attributes of the store response (PS3.18 table 10.5.3-2): Failed SOP Sequence, Failure Reason,
# Referenced SOP Sequence, Warning Reason, Referenced SOP Instance UID.
_FAILED, _REASON = "00081198", "00081197"
_STORED, _WARNING = "00081199", "00081196"
_SOP_INSTANCE = "00081155"


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def probe(destination: DicomwebDestination, *, timeout_s: float = 10) -> None:
    """Tests the service by a query for one study.

    Raises:
        Unreachable: no connection, or no response in time.
        Busy: the server cannot respond at the moment.
        NotAuthorised: the credentials are not accepted.
        Refused: any other status; the URL may not be the DICOMweb root.
    """
    response = _request(
        destination,
        "GET",
        "/studies?limit=1",
        {"Accept": "application/dicom+json"},
        None,
        timeout_s,
    )
    if response.status_code not in (200, 204):
        _raise_for_status(destination, response.status_code)


def send(destination: DicomwebDestination, content: bytes, *, timeout_s: float = 30) -> Delivered:
    """Sends one Part-10 file by STOW-RS.

    200 and 202 mean success only if the body does not list the instance as failed. A failure reason
    in the body, even with a 409, has the meaning of the same C-STORE status.

    Raises:
        Unreachable: no connection, or no response in time.
        Busy: the server cannot store it at the moment.
        ProcessingFailed: the server could not store it.
        NotAuthorised: the server does not permit it.
        Refused: the server does not accept this instance, or the URL is not the DICOMweb root.
    """
    sop_instance_uid = str(
        dcmread(BytesIO(content), specific_tags=["SOPInstanceUID"]).SOPInstanceUID
    )
    boundary = uuid4().hex
    headers = {
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
    }
    part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = part + content + f"\r\n--{boundary}--\r\n".encode()
    response = _request(destination, "POST", "/studies", headers, body, timeout_s)
    code = response.status_code
    if code not in (200, 202, 409):
        _raise_for_status(destination, code)

    stored = _json(response)
    if failed := _item(stored, _FAILED, sop_instance_uid):
        reason = _value(failed, _REASON)
        if isinstance(reason, int):
            return interpret_status(reason, destination.name)
        raise Refused(f"{destination.name} failed to store it and gives no reason (HTTP {code})")
    if code == 409:
        raise Refused(
            f"{destination.name} stored nothing and gives no reason (HTTP 409); its log says why"
        )
    warning = _value(_item(stored, _STORED, sop_instance_uid) or {}, _WARNING)
    if isinstance(warning, int):
        return Delivered(str(code), f"stored, with warning {warning:04X}")
    return Delivered(str(code), "stored, with an unspecified warning" if code == 202 else None)


def _request(
    destination: DicomwebDestination,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    timeout_s: float,
) -> requests.Response:
    auth: AuthBase | None = None
    if destination.token:
        auth = _Bearer(destination.token)
    elif destination.username:
        auth = HTTPBasicAuth(destination.username, destination.password or "")
    try:
        return requests.request(
            method,
            destination.url + path,
            headers=headers,
            data=body,
            auth=auth,
            timeout=timeout_s,
            # A redirected POST becomes a GET, which stores nothing and is answered with 200.
            allow_redirects=False,
        )
    except requests.exceptions.SSLError:
        raise Unreachable(
            f"{destination.name}: its TLS certificate is not trusted; "
            "check the URL and the certificate"
        ) from None
    except requests.RequestException:
        raise Unreachable(
            f"{destination.name} does not answer; check its URL and that it is running"
        ) from None


def _raise_for_status(destination: DicomwebDestination, code: int) -> NoReturn:
    """Raises the error that an HTTP status other than success stands for.

    Raises:
        NotAuthorised: 401 or 403.
        Busy: 408, 425, 429 or 5xx.
        Refused: any other.
    """
    if code in (401, 403):
        raise NotAuthorised(
            f"{destination.name} does not permit it (HTTP {code}); check the credentials"
        )
    if code in (408, 425, 429) or code >= 500:
        raise Busy(f"{destination.name} is not available (HTTP {code}); try again later")
    raise Refused(
        f"{destination.name} refused it (HTTP {code}); check that its URL is the DICOMweb root"
    )


def _json(response: requests.Response) -> dict[str, Any]:
    """The store response; empty if the server sends none, or XML."""
    try:
        stored = response.json()
    except requests.exceptions.JSONDecodeError:
        return {}
    if isinstance(stored, list):  # some servers wrap it
        stored = stored[0] if stored else {}
    return stored if isinstance(stored, dict) else {}


def _item(stored: dict[str, Any], sequence: str, sop_instance_uid: str) -> dict[str, Any] | None:
    """The item for the instance; an item without a UID is also for it, as only one was sent."""
    for item in stored.get(sequence, {}).get("Value", []):
        if _value(item, _SOP_INSTANCE) in (sop_instance_uid, None):
            return dict(item)
    return None


def _value(item: dict[str, Any], tag: str) -> object:
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]
