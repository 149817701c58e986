"""The settings: from `LUMBAR_*` variables, then from `lumbar.toml` in the working folder.

No other module reads settings from the environment. Every setting has a row in
``docs/operations.md``; a test keeps the two consistent.
"""

import os
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from lumbar.errors import WrongSetting
from lumbar.peers.destinations import Destination, parse_destination

# PS3.5 6.2: the default character repertoire, no backslash, not only spaces
AE_TITLE = re.compile(r"(?! *$)[ -\[\]-~]{1,16}")
UID = re.compile(r"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")  # PS3.5 9.1

WEB_ROOT = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
WEB_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

# Upper bounds: beyond them a number is a slip, and what waits for so long would never happen.
HOUR_S, DAY_S = 3600, 86_400
MAX_DAYS = 36_500  # a century
MAX_COUNT = 1_000_000
MAX_MIB = 1_048_576  # a tebibyte

# What 0 means for a setting whose user may want to write "never" or "infinite"
ZERO = {
    "keep_days": "0 keeps images until the disk fills up",
    "worklist_days": "0 keeps studies listed until they are read",
}

CORRECT_IT = "Correct it in the environment or in lumbar.toml"


class _TomlFile(InitSettingsSource):
    """`lumbar.toml`. A table that the environment sets too is replaced as a whole, not merged."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings, _settings_in(Path("lumbar.toml")))

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__call__().items()
            if name not in self.current_state
        }


def _settings_in(file: Path) -> dict[str, Any]:
    """The file's settings; none where there is no file.

    Raises:
        WrongSetting: it cannot be read, or is not TOML in UTF-8; a byte order mark does no harm.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        if file.is_symlink():
            raise WrongSetting(f"{file} is a link to a file that does not exist") from error
        return {}
    except OSError as error:
        raise WrongSetting(f"{file} cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise WrongSetting(f"{file} is not UTF-8 (line {line}); save it as UTF-8") from error
    except ValueError as error:
        utf_16 = "; it looks like UTF-16: save it as UTF-8" if b"\0" in content else ""
        raise WrongSetting(f"{file} is not TOML: {error}{utf_16}") from error


class Settings(BaseSettings):
    """What a site can configure. A wrong value stops start-up with a message that names it."""

    model_config = SettingsConfigDict(
        env_prefix="LUMBAR_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    home: Path = Field(
        Path("var"), description="Folder of the received files, the reports and the SQLite database"
    )
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL; unset: SQLite under `home`. PostgreSQL: "
        "`postgresql+psycopg://…`",
    )
    broker_url: str | None = Field(
        None,
        description="Redis URL of the Celery broker, which carries notifications: `redis://`, "
        "`rediss://` (TLS) or `sentinel://host:26379;sentinel://…`; unset: none (embedded)",
    )
    broker_ca: Path | None = Field(
        None,
        description="PEM file of the CA that issued the certificate of a `rediss://` broker; "
        "unset: the system's CAs",
    )
    broker_master: str = Field(
        "mymaster", description="Name of the master that the Sentinels of the broker watch"
    )
    broker_sentinel_password: str | None = Field(
        None, description="Password of the Sentinels; that of Redis is in the URL"
    )
    bundle: Path | None = Field(
        None,
        description="Folder of the networks' weights; unset: the shipped bundle, trained on "
        "phantoms",
    )

    host: str = Field(
        "127.0.0.1", description="Address the receiver listens on; `0.0.0.0` for every interface"
    )
    port: int = Field(
        11112, ge=0, le=65535, description="TCP port of the receiver; 0: any free one"
    )
    ae_title: str = Field(
        "LUMBAR", description="The receiver's AE title; associations that call another are rejected"
    )
    known_aes: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Calling AE titles that may send, comma-separated; empty: any"
    )
    correction_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Calling AE titles whose corrections of a patient, name or accession number "
        "are taken over at once when the whole study was sent again, comma-separated; those of "
        "others wait for an operator",
    )
    rejection_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Calling AE titles whose rejection notes (IHE IOCM) count, comma-separated",
    )
    known_addresses: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Addresses or networks (`10.1.0.0/16`) that may connect, comma-separated; "
        "empty: any",
    )
    extra_sop_classes: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="UIDs of private SOP classes to accept, too, comma-separated: "
        "`1.3.12.2.1107.5.9.1` (Siemens CSA Non-Image)",
    )
    maximum_associations: int = Field(
        32,
        ge=1,
        le=10_000,
        description="Simultaneous associations; beyond it the oldest idle one is closed to admit "
        "a new one",
    )
    network_timeout_s: float = Field(
        60, gt=0, le=DAY_S, description="Seconds to wait for a silent peer, and for each PDU"
    )
    association_limit_s: float = Field(
        3600, gt=0, le=7 * DAY_S, description="Seconds an association may last"
    )
    maximum_instance_mib: int = Field(
        1024, ge=1, le=MAX_MIB, description="Largest object accepted, MiB"
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the receiver's certificate (and its chain); if set, TLS only",
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the CA that must have issued senders' certificates; unset: no "
        "certificate is required",
    )
    maximum_unregistered: int = Field(
        20_000,
        ge=1,
        le=1_000_000_000,
        description="Received images that may wait for the database; beyond it images are refused "
        "with status 0xA700",
    )
    keep_days: float = Field(
        30,
        ge=0,
        le=MAX_DAYS,
        description="Days the images of a finished study are kept; 0: until the disk fills up",
    )
    keep_at_least_hours: float = Field(
        24,
        ge=0,
        le=24 * MAX_DAYS,
        description="Hours the images of a finished study are kept however full the disk is",
    )
    disk_remove_above: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Disk usage (0–1) above which the oldest images of finished studies are "
        "removed",
    )
    disk_refuse_above: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Disk usage (0–1) above which images are refused with status 0xA700",
    )

    web: bool = Field(True, description="Let `lumbar up` serve the page and the REST API")
    web_host: str = Field(
        "127.0.0.1",
        description="Address the page listens on; other than on loopback, it requires a user "
        "account, and TLS or a proxy",
    )
    web_port: int = Field(8080, ge=0, le=65535, description="TCP port of the page; 0: any free one")
    web_certificate: Path | None = Field(
        None,
        description="PEM file of the page's certificate (and its chain); if set, HTTPS only",
    )
    web_key: Path | None = Field(None, description="PEM file of that certificate's key")
    web_proxy: str = Field(
        "",
        description="Address of the reverse proxy that provides HTTPS; its X-Forwarded headers "
        "are trusted",
    )
    web_root: str = Field(
        "",
        description="Path under which a reverse proxy serves the page, whether it strips it or "
        "not: `/triage`; empty: `/`",
    )
    web_origin: str | None = Field(
        None,
        description="Scheme and host by which browsers reach the page, where a proxy does not pass "
        "them on: `https://triage.example`",
    )
    viewer_url: str | None = Field(
        None,
        description="Viewer URL with `{study}`, `{accession}` or `{patient}`: "
        "`https://ohif/viewer?…`",
    )
    upload_mib: int = Field(
        2048,
        ge=1,
        le=MAX_MIB,
        description="Largest upload to the page, all its files together, MiB",
    )

    destinations: dict[str, str] = Field(
        default_factory=dict,
        description="Report destinations: name → `dicom://AE@host:port` or "
        "`https://host/dicom-web`",
    )
    attempts: int = Field(
        20,
        ge=1,
        le=MAX_COUNT,
        description="Attempts at a job after temporary errors before it fails, at least",
    )
    retry_hours: float = Field(
        168,
        ge=0,
        le=24 * MAX_DAYS,
        description="Hours for which a job is attempted again after temporary errors before it "
        "fails, at least",
    )
    fault_attempts: int = Field(
        3, ge=1, le=MAX_COUNT, description="Attempts at a job after internal faults before it fails"
    )
    worker_losses: int = Field(
        10, ge=1, le=MAX_COUNT, description="Workers lost while running a job before it fails"
    )
    retry_base_s: float = Field(
        5,
        gt=0,
        le=DAY_S,
        description="Seconds before the first retry; doubled each time, with jitter",
    )
    retry_longest_s: float = Field(
        900, gt=0, le=DAY_S, description="Maximum seconds before a retry"
    )

    delivery_timeout_s: float = Field(
        30, gt=0, le=DAY_S, description="Seconds to wait for each response of a destination"
    )
    delivery_limit_s: float = Field(
        120,
        gt=0,
        le=DAY_S,
        description="Seconds that sending to a destination, or asking it, may take",
    )
    absent_after_minutes: float = Field(
        10,
        ge=0,
        le=60 * 24 * MAX_DAYS,
        description="Minutes after which a report that a destination accepted, but does not "
        "list, is sent again",
    )

    quiet_s: float = Field(
        15,
        ge=0,
        le=7 * DAY_S,
        description="Seconds without a new image after which a study with all three series roles "
        "is complete",
    )
    quiet_incomplete_s: float = Field(
        120,
        ge=0,
        le=7 * DAY_S,
        description="Seconds without a new image after which any study is complete",
    )
    sweep_every_s: float = Field(0.5, gt=0, le=HOUR_S, description="Seconds between two sweeps")
    lease_s: float = Field(
        25,
        ge=1,
        le=DAY_S,
        description="Seconds without a heartbeat after which a worker's job goes to another worker",
    )
    job_limit_s: float = Field(
        900,
        gt=0,
        le=7 * DAY_S,
        description="Seconds after which a job counts as stuck and its worker is terminated",
    )

    rank_by_synthetic: bool = Field(
        False, description="Let weights trained only on phantoms rank the worklist, as in the demo"
    )
    worklist_days: float = Field(
        7,
        ge=0,
        le=MAX_DAYS,
        description="Days an unread study stays on the worklist after its last result; then it is "
        "listed as expired, and its images may be removed; 0: until it is read",
    )
    uncertain_below: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A finding whose highest probability is below this is marked uncertain",
    )
    time_zone: str | None = Field(
        None,
        description="IANA time zone of the site (`Europe/Berlin`), "
        "for dates and times without an offset; "
        "unset: the machine's",
    )
    syslog: str | None = Field(
        None,
        description="Server to send the audit trail to: `tls://host:6514`, `tcp://host:601` or "
        "`udp://host:514`",
    )
    log_format: str = Field(
        "console", pattern="^(console|json)$", description="`console` or `json` log lines"
    )

    @field_validator(
        *("known_aes", "correction_sources", "rejection_sources"),
        *("known_addresses", "extra_sop_classes"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, list | tuple):
            entries = (entry.strip() if isinstance(entry, str) else entry for entry in value)
            return tuple(entry for entry in entries if entry != "")
        return value

    @field_validator(
        *("home", "bundle", "broker_ca"),
        *("tls_certificate", "tls_key", "tls_client_ca", "web_certificate", "web_key"),
    )
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        try:
            return value and value.expanduser()
        except RuntimeError as error:
            raise ValueError(f"{value}: there is no such user's home folder") from error

    @field_validator("ae_title", "known_aes", "correction_sources", "rejection_sources")
    @classmethod
    def _check_ae_titles(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for title in (value,) if isinstance(value, str) else value:
            if not AE_TITLE.fullmatch(title):
                raise ValueError(f"{title!r} is not an AE title: 1 to 16 characters, no backslash")
        return value

    @field_validator("extra_sop_classes")
    @classmethod
    def _check_uids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for uid in value:
            if not UID.fullmatch(uid):
                raise ValueError(
                    f"{uid!r} is not a UID: numbers separated by dots, at most 64 characters"
                )
        return value

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, value: str | None) -> str | None:
        parts = (value or "").split(";")
        if value is not None and not all(map(_is_broker, parts)):
            raise ValueError(
                "must be the URL of a Redis server, for instance redis://localhost:6379/0, "
                "rediss://… (TLS), or of its Sentinels: sentinel://host:26379;sentinel://…"
            )
        return value

    @model_validator(mode="after")
    def _has_broker_tls(self) -> Self:
        if self.broker_ca is None:
            return self
        if not (self.broker_url or "").startswith("rediss://"):
            raise ValueError("broker_ca needs a broker_url that begins with rediss://")
        if not self.broker_ca.is_file():
            raise ValueError(f"broker_ca: there is no file {self.broker_ca}")
        return self

    @model_validator(mode="after")
    def _has_complete_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; set both or neither")
        if (self.web_certificate is None) != (self.web_key is None):
            raise ValueError("web_certificate and web_key belong together; set both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @field_validator("syslog")
    @classmethod
    def _check_syslog(cls, value: str | None) -> str | None:
        if value is not None:
            from lumbar.syslog import Syslog  # imports ssl, which commands without it can spare

            try:
                Syslog(value)
            except WrongSetting as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_a_time_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(
                    f"{value!r} is not an IANA time zone; write one such as Europe/Berlin"
                ) from error
        return value

    @field_validator("web_root")
    @classmethod
    def _check_web_root(cls, value: str) -> str:
        path = value.strip("/")
        if path and not WEB_ROOT.fullmatch(path):
            raise ValueError(
                f"{value!r} is not a path such as /triage: letters, digits, - and _, between /"
            )
        return f"/{path}" if path else ""

    @field_validator("web_origin")
    @classmethod
    def _check_web_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        origin = value.rstrip("/").lower()
        if not WEB_ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{value!r} is not a scheme and a host, such as https://triage.example; "
                "a path belongs in web_root"
            )
        return origin

    @field_validator("viewer_url")
    @classmethod
    def _check_viewer_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://", "weasis://")):
            raise ValueError("viewer_url must begin with http://, https:// or weasis://")
        return value

    @model_validator(mode="after")
    def _check_disk_limits(self) -> Self:
        if self.disk_remove_above > self.disk_refuse_above:
            raise ValueError("disk_remove_above must not be larger than disk_refuse_above")
        return self

    @field_validator("destinations")
    @classmethod
    def _check_destinations(cls, value: dict[str, str]) -> dict[str, str]:
        for name, url in value.items():
            if not 1 <= len(name) <= 64:
                raise ValueError(f"a destination's name has 1 to 64 characters, not {len(name)}")
            try:
                parse_destination(name, url)
            except WrongSetting as error:
                raise ValueError(str(error)) from error
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _TomlFile(settings_cls)

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """The settings in force.

        Raises:
            WrongSetting: a setting is unknown or has an invalid value; the message names each.
        """
        _reject_misspelt(cls.model_fields)
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(map(_problem, error.errors(include_url=False)))
            raise WrongSetting(f"{problems}. {CORRECT_IT}") from error
        except (SettingsError, ValueError) as error:
            reason = error.__cause__ or error
            raise WrongSetting(f"{error}: {reason}. {CORRECT_IT}") from error

    @cached_property
    def effective_database_url(self) -> str:
        """The configured database, or SQLite under ``home``.

        In a URL, a folder's ``?``, ``#`` and ``%`` would be taken for its own.
        """
        return self.database_url or f"sqlite:///{quote(str(self.home / 'lumbar.sqlite'))}"

    @cached_property
    def zone(self) -> ZoneInfo | None:
        """The site's time zone; None: the machine's local one."""
        return ZoneInfo(self.time_zone) if self.time_zone else None

    @cached_property
    def results_sha256(self) -> str:
        """Digest of the settings that affect a result; part of every report's identity."""
        relevant = self.model_dump_json(include={"uncertain_below"})
        return sha256(relevant.encode()).hexdigest()

    def destination(self, name: str) -> Destination:
        """The configured destination of that name.

        Raises:
            WrongSetting: no destination has that name.
        """
        if name not in self.destinations:
            known = ", ".join(sorted(self.destinations)) or "none is set"
            raise WrongSetting(
                f"no destination is called {name!r} (known: {known}); set LUMBAR_DESTINATIONS"
            )
        return parse_destination(name, self.destinations[name])


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


def _problem(problem: ErrorDetails) -> str:
    """``LUMBAR_PORT: Input should be a valid integer``."""
    name = "_".join(("LUMBAR", *map(str, problem["loc"]))).upper()
    zero = ZERO.get("_".join(map(str, problem["loc"])))
    too_large = problem["type"] in {"finite_number", "less_than_equal"}
    return f"{name}: {problem['msg']}" + (f" ({zero})" if zero and too_large else "")


def _reject_misspelt(known: Iterable[str]) -> None:
    """Rejects variables that look like a misspelt setting, which would be ignored silently.

    Raises:
        WrongSetting: there is such a variable.
    """
    names = {f"LUMBAR_{name.upper()}" for name in known}
    unknown = [name for name in os.environ if name.startswith("LUMBAR_") and name not in names]
    for variable in sorted(unknown):
        if similar := get_close_matches(variable, names, n=1, cutoff=0.85):
            raise WrongSetting(f"{variable} is not a setting; did you mean {similar[0]}?")
