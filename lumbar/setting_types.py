"""The types of settings: what a value may be, and the one line that says what is wrong with it.

Each validator raises ValueError, whose text follows the setting's name.
"""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from lumbar.errors import WrongSetting
from lumbar.peers.destinations import parse_destination

# PS3.5 6.2: the default character repertoire, no backslash, not only spaces
AE_TITLE = re.compile(r"(?! *$)[ -\[\]-~]{1,16}")
UID = re.compile(r"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")  # PS3.5 9.1

WEB_ROOT = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
HOST_NAME = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")
WEB_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def _split(value: object) -> object:
    """A comma-separated text, or a list of texts, without empty entries."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list | tuple):
        entries = (entry.strip() if isinstance(entry, str) else entry for entry in value)
        return tuple(entry for entry in entries if entry != "")
    return value


def _expand(value: Path) -> Path:
    """``~`` and ``~user`` are home folders.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: there is no such user's home folder") from error


def _check_ae_title(title: str) -> str:
    if not AE_TITLE.fullmatch(title):
        raise ValueError(f"{title!r} is not an AE title: 1 to 16 characters, no backslash")
    return title


def _check_ae_titles(titles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_check_ae_title, titles))


def _check_uids(uids: tuple[str, ...]) -> tuple[str, ...]:
    for uid in uids:
        if not UID.fullmatch(uid):
            raise ValueError(
                f"{uid!r} is not a UID: numbers separated by dots, at most 64 characters"
            )
    return uids


def _check_broker_url(value: str) -> str:
    if not all(map(_is_broker, value.split(";"))):
        raise ValueError(
            "must be the URL of a Redis server, for instance redis://localhost:6379/0, "
            "rediss://… (TLS), or of its Sentinels: sentinel://host:26379;sentinel://…"
        )
    return value


def _is_broker(url: str) -> bool:
    """Whether it is a URL of a Redis server or a Sentinel."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # the port is not a number
        return False
    if parts.scheme == "redis+socket":
        return bool(parts.path)
    return parts.scheme in {"redis", "rediss", "sentinel"} and bool(parts.hostname)


def _check_syslog(value: str) -> str:
    from lumbar.syslog import Syslog  # imports ssl, which commands without it can spare

    try:
        Syslog(value)
    except WrongSetting as error:
        raise ValueError(str(error)) from error
    return value


def _check_time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{value!r} is not an IANA time zone; write one such as Europe/Berlin"
        ) from error
    return value


def _check_web_root(value: str) -> str:
    path = value.strip("/")
    if path and not WEB_ROOT.fullmatch(path):
        raise ValueError(
            f"{value!r} is not a path such as /triage: letters, digits, - and _, between /"
        )
    return f"/{path}" if path else ""


def _check_hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    hosts = tuple(value.lower().strip("[]") for value in values)
    for host in hosts:
        if not HOST_NAME.fullmatch(host):
            raise ValueError(
                f"{host!r} is not a host's name or address, such as triage.example, without a port"
            )
    return hosts


def _check_web_origin(value: str) -> str:
    origin = value.rstrip("/").lower()
    if not WEB_ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{value!r} is not a scheme and a host, such as https://triage.example; "
            "a path belongs in web_root"
        )
    return origin


def _check_viewer_url(value: str) -> str:
    if not value.startswith(("http://", "https://", "weasis://")):
        raise ValueError("viewer_url must begin with http://, https:// or weasis://")
    return value


def _check_destinations(value: dict[str, str]) -> dict[str, str]:
    for name, url in value.items():
        if not 1 <= len(name) <= 64:
            raise ValueError(f"a destination's name has 1 to 64 characters, not {len(name)}")
        try:
            parse_destination(name, url)
        except WrongSetting as error:
            raise ValueError(str(error)) from error
    return value


FilePath = Annotated[Path, AfterValidator(_expand)]
AeTitle = Annotated[str, AfterValidator(_check_ae_title)]
AeTitles = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_ae_titles)
]
Uids = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_uids)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_hosts)]
BrokerUrl = Annotated[str, AfterValidator(_check_broker_url)]
SyslogUrl = Annotated[str, AfterValidator(_check_syslog)]
TimeZone = Annotated[str, AfterValidator(_check_time_zone)]
WebRoot = Annotated[str, AfterValidator(_check_web_root)]
WebOrigin = Annotated[str, AfterValidator(_check_web_origin)]
ViewerUrl = Annotated[str, AfterValidator(_check_viewer_url)]
Destinations = Annotated[dict[str, str], AfterValidator(_check_destinations)]
