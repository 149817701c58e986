"""HTTP requests whose answers are bounded, and whose credentials go to one host only."""

import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from lumbar.peers.deadline import Deadline, require_before
from lumbar.peers.destinations import DicomwebDestination
from lumbar.peers.outcomes import (
    Busy,
    NotAuthorised,
    NotConnected,
    Unintelligible,
    Unreachable,
)

LONGEST_ANSWER = 2**20  # bytes, once decompressed
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 3
_CHUNK = 65_536


@dataclass(frozen=True)
class Answer:
    """``body``: decompressed; empty if it is longer than ``LONGEST_ANSWER`` or cannot be read."""

    status: int
    content_type: str
    body: bytes


class _Session(requests.Session):
    """Looks at no redirection: requests would read all of its body to prepare for following it."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No target, ever."""
        return


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _Body(BytesIO):
    """What is posted, as long as it is not too late for it."""

    def __init__(self, content: bytes, name: str, not_after: float | None) -> None:
        super().__init__(content)
        self._name, self._not_after = name, not_after

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            TooLate: nothing may be sent any more; the server gets an incomplete request.
        """
        require_before(self._not_after, self._name)
        return super().read(size)


def get(destination: DicomwebDestination, path: str, deadline: Deadline) -> Answer:
    """The answer to a query for DICOM JSON.

    Raises:
        Unreachable: no connection, or no answer in time.
        Unintelligible: it redirects to another server, or too often.
    """
    headers = {"Accept": "application/dicom+json"}
    return _request(destination, path, deadline, headers, None, None)


def post(
    destination: DicomwebDestination,
    path: str,
    deadline: Deadline,
    headers: dict[str, str],
    content: bytes,
    not_after: float | None,
) -> Answer:
    """The answer to a post; as ``get``.

    Raises:
        TooLate: the connection was not open in time.
    """
    return _request(destination, path, deadline, headers, content, not_after)


def raise_unavailable(destination: DicomwebDestination, status: int) -> None:
    """Raises the error of a status that concerns the server and may pass; none for another.

    Raises:
        NotAuthorised: 401, 403 or 407.
        Busy: 408, 423, 425, 429 or 5xx.
        Unreachable: 404.
        Unintelligible: a redirection that is not followed.
    """
    name = destination.name
    if status == 407:
        raise NotAuthorised(f"the proxy of {name} does not permit it (HTTP 407)")
    if status in (401, 403):
        raise NotAuthorised(f"{name} does not permit it (HTTP {status}); check the credentials")
    if status in (408, 423, 425, 429) or status >= 500:
        raise Busy(f"{name} is not available (HTTP {status}); try again later")
    if status == 404:
        raise Unreachable(
            f"{name} has no DICOMweb service there at the moment (HTTP 404); "
            "check that it is running, and that its URL is the DICOMweb root"
        )
    if 300 <= status <= 399:
        raise Unintelligible(
            f"{name} redirects elsewhere (HTTP {status}); "
            "check that its URL is the DICOMweb root, and whether it requires a login"
        )


def _request(
    destination: DicomwebDestination,
    path: str,
    deadline: Deadline,
    headers: dict[str, str],
    content: bytes | None,
    not_after: float | None,
) -> Answer:
    url = destination.url + path
    with _Session() as session:
        session.trust_env = destination.environment
        # The authorities of a site's own certificates are no secret: they always count.
        session.verify = _authorities() or True
        for _ in range(_MOST_REDIRECTS + 1):
            body = None if content is None else _Body(content, destination.name, not_after)
            answer, location = _exchange(session, destination, url, deadline, headers, body)
            followed = (307, 308) if content is not None else _REDIRECTS
            if answer.status not in followed or not location:
                return answer
            url = _redirected(destination, url, location)
    raise Unintelligible(f"{destination.name} redirects too often; check its URL")


def _exchange(
    session: requests.Session,
    destination: DicomwebDestination,
    url: str,
    deadline: Deadline,
    headers: dict[str, str],
    body: _Body | None,
) -> tuple[Answer, str]:
    """One request's answer, and where it redirects to.

    Raises:
        Unreachable: no connection, or no answer in time.
    """
    try:
        with session.request(
            "GET" if body is None else "POST",
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "lumbar-triage", **headers},
            data=body,
            auth=_authorisation(destination),
            timeout=deadline.wait_s(),
            stream=True,
        ) as response:
            content_type = response.headers.get("Content-Type", "")
            answer = Answer(response.status_code, content_type, _read(response, deadline))
            return answer, response.headers.get("Location", "")
    except requests.exceptions.SSLError:
        raise Unreachable(
            f"{destination.name}: its TLS certificate is not trusted; "
            "check the URL and the certificate"
        ) from None
    except requests.exceptions.ProxyError:
        raise Unreachable(
            f"{destination.name}: its proxy does not answer; check HTTPS_PROXY and HTTP_PROXY"
        ) from None
    except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
        deadline.wait_s()
        raise (NotConnected if _is_of_connecting(error) else Unreachable)(
            f"{destination.name} does not answer; check its URL and that it is running"
        ) from None


def _is_of_connecting(error: Exception) -> bool:
    """Whether there was no connection, rather than one that was lost or silent."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def _authorities() -> str | None:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")


def _authorisation(destination: DicomwebDestination) -> AuthBase | None:
    if destination.token:
        return _Bearer(destination.token)
    if destination.username:
        return HTTPBasicAuth(destination.username.encode(), (destination.password or "").encode())
    return None


def _redirected(destination: DicomwebDestination, url: str, location: str) -> str:
    """Where a redirection leads, on the same server or from its HTTP to its HTTPS.

    Raises:
        Unintelligible: it leads elsewhere.
    """
    with suppress(ValueError):
        target = urljoin(url, location)
        old, new = urlsplit(url), urlsplit(target)
        secured = (old.scheme, new.scheme) == ("http", "https")
        same = (old.scheme, _port(old)) == (new.scheme, _port(new))
        if new.hostname == old.hostname and (same or secured) and "@" not in new.netloc:
            return target
    raise Unintelligible(
        f"{destination.name} redirects to another server, which is not followed; "
        "check that its URL is the DICOMweb root"
    )


def _port(url: SplitResult) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _read(response: requests.Response, deadline: Deadline) -> bytes:
    """The body, decompressed; empty if that is too long, or it cannot be read.

    Raises:
        Unreachable: the operation's time has passed.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        return b""
    plain = encoding in ("identity", "")
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as its header says
    body = b""
    try:
        while len(body) <= LONGEST_ANSWER:
            deadline.wait_s()
            chunk = response.raw.read1(_CHUNK, decode_content=False)
            if not chunk:
                return body
            room = LONGEST_ANSWER + 1 - len(body)
            body += chunk if plain else decompressor.decompress(chunk, room)
    except (HTTPError, HTTPException, OSError, ValueError, zlib.error):
        return b""
    return b""
