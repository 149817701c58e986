"""The settings: from `LUMBAR_*` variables, then from `lumbar.toml` in the working folder.

No other module reads settings from the environment. Every setting has a row in
``docs/operations.md``; a test keeps the two consistent.
"""

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from lumbar.errors import WrongSetting
from lumbar.peers.destinations import Destination, parse_destination
from lumbar.setting_types import (
    AeTitle,
    AeTitles,
    BrokerUrl,
    Destinations,
    FilePath,
    Hosts,
    Networks,
    SyslogUrl,
    TimeZone,
    Uids,
    ViewerUrl,
    WebOrigin,
    WebRoot,
)
from lumbar.settings_sources import TomlFile, reject_misspelt

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


class Settings(BaseSettings):
    """What a site can configure. A wrong value stops start-up with a message that names it."""

    model_config = SettingsConfigDict(
        env_prefix="LUMBAR_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    home: FilePath = Field(
        Path("var"), description="Folder of the received files, the reports and the SQLite database"
    )
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL; unset: SQLite under `home`. PostgreSQL: "
        "`postgresql+psycopg://…`",
    )
    broker_url: BrokerUrl | None = Field(
        None,
        description="Redis URL of the Celery broker, which carries notifications: `redis://`, "
        "`rediss://` (TLS) or `sentinel://host:26379;sentinel://…`; unset: none (embedded)",
    )
    broker_ca: FilePath | None = Field(
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
    bundle: FilePath | None = Field(
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
    ae_title: AeTitle = Field(
        "LUMBAR", description="The receiver's AE title; associations that call another are rejected"
    )
    known_aes: AeTitles = Field(
        (), description="Calling AE titles that may send, comma-separated; empty: any"
    )
    correction_sources: AeTitles = Field(
        (),
        description="Calling AE titles whose corrections of a patient, name or accession number "
        "are taken over at once when the whole study was sent again, comma-separated; those of "
        "others wait for an operator",
    )
    rejection_sources: AeTitles = Field(
        (),
        description="Calling AE titles whose rejection notes (IHE IOCM) count, comma-separated",
    )
    known_addresses: Networks = Field(
        (),
        description="Addresses or networks (`10.1.0.0/16`) that may connect, comma-separated; "
        "empty: any",
    )
    extra_sop_classes: Uids = Field(
        (),
        description="UIDs of private SOP classes to accept, too, comma-separated: "
        "`1.3.12.2.1107.5.9.1` (Siemens CSA Non-Image)",
    )
    maximum_associations: int = Field(
        32,
        ge=1,
        le=10_000,
        description="Simultaneous associations; beyond it one that stores nothing, of the address "
        "that holds most, is closed to admit a new one",
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
    tls_certificate: FilePath | None = Field(
        None,
        description="PEM file of the receiver's certificate (and its chain); if set, TLS only",
    )
    tls_key: FilePath | None = Field(None, description="PEM file of the certificate's key")
    tls_client_ca: FilePath | None = Field(
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
    web_certificate: FilePath | None = Field(
        None,
        description="PEM file of the page's certificate (and its chain); if set, HTTPS only",
    )
    web_key: FilePath | None = Field(None, description="PEM file of that certificate's key")
    web_proxy: Networks = Field(
        (),
        description="Address or network of the reverse proxy that provides HTTPS, several "
        "comma-separated; its X-Forwarded headers are trusted, and only it is answered",
    )
    web_hosts: Hosts = Field(
        (),
        description="Names under which the page is reached, comma-separated, besides "
        "`localhost`, this machine's name, the address connected to and the host of "
        "`LUMBAR_WEB_ORIGIN`; requests with another Host are refused",
    )
    web_root: WebRoot = Field(
        "",
        description="Path under which a reverse proxy serves the page, whether it strips it or "
        "not: `/triage`; empty: `/`",
    )
    web_origin: WebOrigin | None = Field(
        None,
        description="Scheme and host by which browsers reach the page, where a proxy does not pass "
        "them on: `https://triage.example`",
    )
    viewer_url: ViewerUrl | None = Field(
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

    destinations: Destinations = Field(
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
        10, ge=1, le=MAX_COUNT, description="Workers lost while running an analysis before it fails"
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
    time_zone: TimeZone | None = Field(
        None,
        description="IANA time zone of the site (`Europe/Berlin`), "
        "for dates and times without an offset; "
        "unset: the machine's",
    )
    syslog: SyslogUrl | None = Field(
        None,
        description="Server to send the audit trail to: `tls://host:6514`, `tcp://host:601` or "
        "`udp://host:514`",
    )
    log_format: str = Field(
        "console", pattern="^(console|json)$", description="`console` or `json` log lines"
    )

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

    @model_validator(mode="after")
    def _check_disk_limits(self) -> Self:
        if self.disk_remove_above > self.disk_refuse_above:
            raise ValueError("disk_remove_above must not be larger than disk_refuse_above")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlFile(settings_cls)

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """The settings in force.

        Raises:
            WrongSetting: a setting is unknown or has an invalid value; the message names each.
        """
        reject_misspelt(cls.model_fields)
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


def _problem(problem: ErrorDetails) -> str:
    """``LUMBAR_PORT: Input should be a valid integer``."""
    name = "_".join(("LUMBAR", *map(str, problem["loc"]))).upper()
    zero = ZERO.get("_".join(map(str, problem["loc"])))
    too_large = problem["type"] in {"finite_number", "less_than_equal"}
    return f"{name}: {problem['msg']}" + (f" ({zero})" if zero and too_large else "")
