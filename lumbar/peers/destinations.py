"""Where results are sent: a DIMSE peer or a DICOMweb server, given as one URL in the settings."""

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from lumbar.errors import WrongSetting

CALLING_AE_TITLE = "LUMBAR"

_EXPECTED = {
    "dicom": (
        "dicom://CALLED_AE@host:port, with ?calling=AE "
        "where the peer expects another calling AE title"
    ),
    "http": (
        "http(s)://host/dicom-web, with user:password@ or token@ "
        "before the host where one is needed"
    ),
}


@dataclass(frozen=True)
class DimseDestination:
    """A peer that accepts C-STORE."""

    name: str
    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str = CALLING_AE_TITLE


@dataclass(frozen=True)
class DicomwebDestination:
    """A server that accepts STOW-RS.

    ``url`` is the root of the service, without credentials and without a trailing slash.
    """

    name: str
    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


Destination = DimseDestination | DicomwebDestination


def parse_destination(name: str, url: str) -> Destination:
    """The destination that a URL describes.

    ``dicom://CALLED_AE@host:port?calling=AE`` or ``http(s)://host[:port]/dicom-web``. In the
    latter, ``user:password@`` is for basic authentication and ``token@`` for a bearer token, both
    percent-encoded.

    Raises:
        WrongSetting: the URL cannot be used. The message names the destination and never shows the
            URL, which may contain a password.
    """
    try:
        destination = _parse(name, urlsplit(url))
    except ValueError:
        kind = "http" if url.startswith("http") else "dicom"
        raise WrongSetting(
            f"destination {name}: not a usable URL; expected {_EXPECTED[kind]}"
        ) from None
    if destination is None:
        raise WrongSetting(
            f"destination {name}: expected {_EXPECTED['dicom']}, or {_EXPECTED['http']}"
        )
    return destination


def _parse(name: str, parts: SplitResult) -> Destination | None:
    """The destination; None for another scheme.

    Raises:
        ValueError: the URL has no host, or has a part that does not belong in it.
    """
    if not parts.hostname or parts.fragment:
        raise ValueError
    if parts.scheme == "dicom":
        return _dimse(name, parts)
    if parts.scheme in ("http", "https"):
        return _dicomweb(name, parts)
    return None


def _dimse(name: str, parts: SplitResult) -> DimseDestination:
    options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    (calling,) = options.pop("calling", [CALLING_AE_TITLE])
    if options or parts.password is not None or parts.path not in ("", "/") or not parts.port:
        raise ValueError
    return DimseDestination(
        name,
        parts.hostname or "",
        parts.port,
        _ae_title(unquote(parts.username or "")),
        _ae_title(calling),
    )


def _ae_title(title: str) -> str:
    """The title without padding.

    Raises:
        ValueError: it is not 1 to 16 printable ASCII characters other than a backslash, not all of
            them spaces (PS3.5 section 6.2).
    """
    title = title.strip(" ")
    if not 1 <= len(title) <= 16 or not (title.isascii() and title.isprintable()) or "\\" in title:
        raise ValueError
    return title


def _dicomweb(name: str, parts: SplitResult) -> DicomwebDestination:
    if parts.query or parts.port == 0:
        raise ValueError
    host = parts.netloc.rpartition("@")[2]
    url = f"{parts.scheme}://{host}{parts.path}".rstrip("/")
    user = unquote(parts.username) if parts.username else None
    if parts.password is None:
        return DicomwebDestination(name, url, token=user)
    if user is None:
        raise ValueError
    return DicomwebDestination(name, url, username=user, password=unquote(parts.password))
