"""The only reader of the environment: `LUMBAR_*` variables, then `lumbar.toml` in the working folder.

Every setting has one line in ``docs/operations.md``; a test holds the two together.
"""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from lumbar.audit_messages import Syslog
from lumbar.errors import WrongSetting
from lumbar.peers.destinations import Destination, parse_destination

AE_TITLE = re.compile(
    r"(?! *$)[ -\[\]-~]{1,16}"
)  # PS3.5 6.2: the default repertoire, no backslash, not only spaces


class _TomlFile(TomlConfigSettingsSource):
    """`lumbar.toml`, each setting as a whole: a table in it is not mixed with the environment's."""

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__call__().items()
            if name not in self.current_state
        }


class Settings(BaseSettings):
    """What a site may set. A wrong value stops the start and names itself."""

    model_config = SettingsConfigDict(
        env_prefix="LUMBAR_",
        toml_file="lumbar.toml",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
    )

    home: Path = Field(
        Path("var"), description="Folder of the received files, reports and the SQLite database"
    )
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL; unset: SQLite under `home`. PostgreSQL: `postgresql+psycopg://…`",
    )
    broker_url: str | None = Field(
        None, description="Redis URL of Celery's notifier; unset: no broker (embedded)"
    )
    bundle: Path | None = Field(
        None,
        description="Folder of the networks' weights; unset: the shipped bundle, trained on phantoms",
    )

    host: str = Field(
        "127.0.0.1", description="Address the receiver listens on; `0.0.0.0` for every interface"
    )
    port: int = Field(
        11112, ge=0, le=65535, description="TCP port of the receiver; 0: any free one"
    )
    ae_title: str = Field("LUMBAR", description="The receiver's AE title; others are refused")
    known_aes: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Calling AE titles that may send, comma-separated; empty: any"
    )
    known_addresses: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Addresses and networks that may connect, comma-separated (`10.1.0.0/16`); empty: any",
    )
    maximum_associations: int = Field(
        32,
        ge=1,
        description="Associations served at once; one that is idle gives place to a new one",
    )
    network_timeout_s: float = Field(
        60, gt=0, description="Seconds a silent peer, and each PDU, is waited for"
    )
    association_limit_s: float = Field(3600, gt=0, description="Seconds an association may last")
    maximum_instance_mib: int = Field(1024, ge=1, description="Largest image taken, MiB")
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the receiver's certificate (and its chain); set: it speaks TLS only",
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authority that senders' certificates must be of; unset: none is asked for",
    )
    keep_days: float = Field(
        30,
        ge=0,
        description="Days the images of a finished study are kept; 0: until the disk fills up",
    )
    disk_remove_above: float = Field(
        0.85,
        gt=0,
        le=1,
        description="How full (0–1) the store's disk may be before the oldest finished images go",
    )
    disk_refuse_above: float = Field(
        0.95,
        gt=0,
        le=1,
        description="How full (0–1) the store's disk may be before images are refused with 0xA700",
    )

    web: bool = Field(True, description="Let `lumbar up` serve the page and the REST API")
    web_host: str = Field(
        "127.0.0.1",
        description="Address the page listens on; any but a loopback one needs a user and TLS or a proxy",
    )
    web_port: int = Field(8080, ge=0, le=65535, description="TCP port of the page; 0: any free one")
    web_certificate: Path | None = Field(
        None,
        description="PEM file of the page's certificate (and its chain); set: it speaks HTTPS only",
    )
    web_key: Path | None = Field(None, description="PEM file of that certificate's key")
    web_proxy: str = Field(
        "",
        description="Address of the reverse proxy that speaks HTTPS for the page; its X-Forwarded headers count",
    )
    viewer_url: str | None = Field(
        None,
        description="Link to a viewer, with `{study}`, `{accession}` and `{patient}`: `https://ohif/viewer?…`",
    )
    upload_mib: int = Field(
        2048, ge=1, description="Largest upload to the page, all its files together, MiB"
    )

    destinations: dict[str, str] = Field(
        default_factory=dict,
        description="Where reports go: name → `dicom://AE@host:port` or `https://host/dicom-web`",
    )
    attempts: int = Field(
        20, ge=1, description="Tries of one job after what may pass, before it is given up"
    )
    fault_attempts: int = Field(3, ge=1, description="Tries of one job after an internal fault")
    worker_losses: int = Field(
        10, ge=1, description="Workers lost over one job before it is given up"
    )
    retry_base_s: float = Field(
        5, gt=0, description="First wait before a retry; doubled each time, with jitter"
    )
    retry_longest_s: float = Field(900, gt=0, description="Longest wait before a retry")

    quiet_s: float = Field(
        15, ge=0, description="Quiet seconds that complete a study with all three series roles"
    )
    quiet_incomplete_s: float = Field(
        120, ge=0, description="Quiet seconds that complete any study"
    )
    sweep_every_s: float = Field(0.5, gt=0, description="Seconds between two sweeps")
    lease_s: float = Field(
        25, ge=1, description="Seconds after which a silent worker's job is given to another"
    )
    job_limit_s: float = Field(
        900, gt=0, description="Seconds after which a job is stuck: its worker is ended"
    )

    rank_by_synthetic: bool = Field(
        False, description="Let weights trained on phantoms only rank the worklist (the demo does)"
    )
    worklist_days: float = Field(
        7,
        ge=0,
        description="Days after its last image that an unread study stays on the worklist; 0: until it is read",
    )
    uncertain_below: float = Field(
        0.5, ge=0, le=1, description="A finding whose best probability is lower is marked uncertain"
    )
    time_zone: str | None = Field(
        None,
        description="IANA time zone of the site (`Europe/Berlin`), of dates and times that name no offset; "
        "unset: the machine's",
    )
    syslog: str | None = Field(
        None,
        description="Where the audit trail is sent too: `tls://host:6514`, `tcp://host:601` or `udp://host:514`",
    )
    log_format: str = Field(
        "console", pattern="^(console|json)$", description="`console` or `json` log lines"
    )

    @field_validator("known_aes", "known_addresses", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(title.strip() for title in value.split(",") if title.strip())
        return value

    @field_validator("ae_title", "known_aes")
    @classmethod
    def _are_ae_titles(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for title in (value,) if isinstance(value, str) else value:
            if not AE_TITLE.fullmatch(title):
                raise ValueError(f"{title!r} is no AE title: 1 to 16 characters, no backslash")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; set both or neither")
        if (self.web_certificate is None) != (self.web_key is None):
            raise ValueError("web_certificate and web_key belong together; set both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @field_validator("syslog")
    @classmethod
    def _is_a_syslog_server(cls, value: str | None) -> str | None:
        if value is not None:
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
                    f"{value!r} is no IANA time zone; write one such as Europe/Berlin"
                ) from error
        return value

    @field_validator("viewer_url")
    @classmethod
    def _is_a_link(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://", "weasis://")):
            raise ValueError("viewer_url begins with http://, https:// or weasis://")
        return value

    @model_validator(mode="after")
    def _removes_before_it_refuses(self) -> Self:
        if self.disk_remove_above > self.disk_refuse_above:
            raise ValueError("disk_remove_above must not be larger than disk_refuse_above")
        return self

    @field_validator("destinations")
    @classmethod
    def _parse(cls, value: dict[str, str]) -> dict[str, str]:
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
            WrongSetting: naming each wrong setting and what it should be.
        """
        _refuse_misspelt(cls.model_fields)
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            wrong = "; ".join(
                f"{'_'.join(('LUMBAR', *map(str, problem['loc']))).upper()}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
            raise WrongSetting(
                f"{wrong}. Correct it in the environment or in lumbar.toml"
            ) from error
        except (SettingsError, ValueError) as error:
            reason = error.__cause__ or error
            raise WrongSetting(
                f"{error}: {reason}. Correct it in the environment or in lumbar.toml"
            ) from error

    @cached_property
    def effective_database_url(self) -> str:
        """The database in force."""
        return self.database_url or f"sqlite:///{self.home / 'lumbar.sqlite'}"

    @cached_property
    def zone(self) -> ZoneInfo | None:
        """The site's time zone; None: the machine's local one."""
        return ZoneInfo(self.time_zone) if self.time_zone else None

    @cached_property
    def results_sha256(self) -> str:
        """Of the settings that change what a result says; it is part of every report's identity."""
        deciding = self.model_dump_json(include={"uncertain_below"})
        return sha256(deciding.encode()).hexdigest()

    def destination(self, name: str) -> Destination:
        """A configured destination by its name.

        Raises:
            WrongSetting: when there is none of that name.
        """
        if name not in self.destinations:
            known = ", ".join(sorted(self.destinations)) or "none is set"
            raise WrongSetting(
                f"no destination is called {name!r} (known: {known}); set LUMBAR_DESTINATIONS"
            )
        return parse_destination(name, self.destinations[name])


def _refuse_misspelt(known: Iterable[str]) -> None:
    """A variable that looks like a setting's name but is none would else be ignored in silence."""
    names = {f"LUMBAR_{name.upper()}" for name in known}
    for variable in sorted(
        name for name in os.environ if name.startswith("LUMBAR_") and name not in names
    ):
        if meant := get_close_matches(variable, names, n=1, cutoff=0.85):
            raise WrongSetting(f"{variable} is no setting; is {meant[0]} meant?")
