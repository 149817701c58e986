"""Where results are sent: a DIMSE peer or a DICOMweb server, given as one URL in the settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from lumbar.errors import WrongSetting

CALLING_AE_TITLE = "LUMBAR"

_EXPECTED = {
    "dicom": (
        "dicom://CALLED_AE@host:port, with ?calling=AE "
        "where the peer expects another calling AE title, confirm=no or probe=echo"
    ),
    "http": (
        "http(s)://host/dicom-web, with user:password@ or token@ "
        "before the host where one is needed, ?proxy=environment, confirm=no or probe=echo"
    ),
}


class Probe(StrEnum):
    """How it is tried whether a destination that failed works again."""

    JOB = "job"  # by one of the deliveries that wait for it
    ECHO = "echo"  # by C-ECHO or a query, which sends no report


@dataclass(frozen=True)
class DimseDestination:
    """A peer that accepts C-STORE.

    ``confirm``: what was sent is read back where the peer can be asked.
    """

    name: str
    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str = CALLING_AE_TITLE
    confirm: bool = True
    probe: Probe = Probe.JOB


@dataclass(frozen=True)
class DicomwebDestination:
    """A server that accepts STOW-RS.

    ``url`` is the root of the service, without credentials and without a trailing slash.
    ``confirm``: what was sent is read back where the server can be asked. ``environment``: the
    environment's proxies (HTTPS_PROXY …) and .netrc apply.
    """

    name: str
    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    confirm: bool = True
    probe: Probe = Probe.JOB
    environment: bool = False


Destination = DimseDestination | DicomwebDestination


def parse_destination(name: str, url: str) -> Destination:
    """The destination that a URL describes.

    ``dicom://CALLED_AE@host:port?calling=AE`` or ``http(s)://host[:port]/dicom-web``. In the
    latter, ``user:password@`` is for basic authentication and ``token@`` for a bearer token, both
    percent-encoded, and ``proxy=environment`` is an option. Options of both are ``confirm=no``
    and ``probe=echo``.

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
    options = _options(parts.query)
    calling = options.pop("calling", CALLING_AE_TITLE)
    confirm, probe = _confirm(options), _probe(options)
    if options or parts.password is not None or parts.path not in ("", "/") or not parts.port:
        raise ValueError
    return DimseDestination(
        name,
        parts.hostname or "",
        parts.port,
        _ae_title(unquote(parts.username or "")),
        _ae_title(calling),
        confirm,
        probe,
    )


def _dicomweb(name: str, parts: SplitResult) -> DicomwebDestination:
    options = _options(parts.query)
    environment = _choice(options, "proxy", {"environment": True, None: False})
    confirm, probe = _confirm(options), _probe(options)
    user = unquote(parts.username) if parts.username else None
    password = None if parts.password is None else unquote(parts.password)
    if options or parts.port == 0 or (password is not None and user is None):
        raise ValueError
    host = parts.netloc.rpartition("@")[2]
    return DicomwebDestination(
        name,
        f"{parts.scheme}://{host}{parts.path}".rstrip("/"),
        username=None if password is None else user,
        password=password,
        token=user if password is None else None,
        confirm=confirm,
        probe=probe,
        environment=environment,
    )


def _options(query: str) -> dict[str, str]:
    """The options of a URL, each given once.

    Raises:
        ValueError: an option is given twice, or without a value.
    """
    options: dict[str, str] = {}
    for name, values in parse_qs(query, keep_blank_values=True, strict_parsing=bool(query)).items():
        (options[name],) = values
    return options


def _confirm(options: dict[str, str]) -> bool:
    return _choice(options, "confirm", {"yes": True, "no": False, None: True})


def _probe(options: dict[str, str]) -> Probe:
    return Probe(options.pop("probe", Probe.JOB))


def _choice(options: dict[str, str], name: str, values: Mapping[str | None, bool]) -> bool:
    """Takes an option, whose value is one of those; None is for an absent one.

    Raises:
        ValueError: it is none of them.
    """
    value = options.pop(name, None)
    if value not in values:
        raise ValueError
    return values[value]


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
