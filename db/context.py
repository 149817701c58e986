"""A site's settings, database and store, opened in one place for every service."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from sqlalchemy import select

from db import schema
from db.database import Database
from db.leases import Backoff, RetryPolicy
from db.models import Instance, JobKind
from db.read_models.worklist_rows import Ranking
from db.stored_instances import TrustedSources
from db.studies import Quiet
from lumbar.settings import Settings
from lumbar.store.files import Store, raising_store_full
from lumbar.store.folders import lasting_id

PREVIEW_ATTEMPTS, PREVIEW_WAIT_S = 3, 5.0
HOUR_S, MARGIN_S = 3600.0, 5.0


@dataclass(frozen=True)
class SiteContext:
    """An open site; one per process."""

    settings: Settings
    database: Database
    store: Store

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connects, and refuses a database whose schema is not this code's.

        Raises:
            Permanent: the schema has another revision.
            DatabaseUnavailable: the database cannot be reached.
            WrongSetting: a bad URL.
        """
        site = cls.unchecked(settings)
        schema.check(site.database)
        return site

    @classmethod
    def unchecked(cls, settings: Settings) -> Self:
        """As ``open``, without asking the database, which may be away.

        Raises:
            WrongSetting: a bad URL.
        """
        database = Database.connect(settings.effective_database_url)
        return cls(settings, database, Store(settings.home / "store"))

    def prepare_store(self) -> None:
        """Makes the store of a new site; the store of any other must be there.

        Raises:
            DatabaseUnavailable: whether the site is new could not be found out.
            StoreFull: the disk that holds the store is not mounted, or cannot be written.
        """
        if self.store.mounted:
            return
        if not self.store.holds_files() and not schema.is_empty(self.database):
            with self.database.reading() as session:
                if session.scalar(select(Instance.id).limit(1)) is not None:
                    self.store.require_mounted()
        self.store.create()

    @cached_property
    def instance_id(self) -> str:
        """Tells this instance of the system from others on the same host: 8 hexadecimal digits.

        Raises:
            StoreFull: it could not be written, the first time that it is needed.
        """
        home = self.settings.home
        with raising_store_full(home):
            return lasting_id(home / "instance-id")

    def retry_policy(self, kind: JobKind) -> RetryPolicy:
        """When a job of this kind is attempted again.

        A user is waiting for a preview, so it is given up sooner. However many workers were lost
        on a delivery, it is not given up: what might kill one runs in the lane's child process.
        """
        if kind is JobKind.PREVIEW:
            soon = Backoff(PREVIEW_ATTEMPTS, PREVIEW_WAIT_S, PREVIEW_WAIT_S)
            return RetryPolicy(soon, soon, PREVIEW_ATTEMPTS)
        settings = self.settings
        base_s, max_s = settings.retry_base_s, settings.retry_longest_s
        return RetryPolicy(
            temporary=Backoff(settings.attempts, base_s, max_s, settings.retry_hours * HOUR_S),
            fault=Backoff(settings.fault_attempts, base_s, max_s),
            max_losses=None if kind is JobKind.DELIVER else settings.worker_losses,
        )

    def lease_s(self, kind: JobKind) -> float:
        """How long a lease lasts without a heartbeat, seconds.

        That of a delivery is looked at before the destination has accepted the association, which
        may take as long as any response.
        """
        if kind is JobKind.DELIVER:
            return max(self.settings.lease_s, self.settings.delivery_timeout_s + MARGIN_S)
        return self.settings.lease_s

    @property
    def ranking(self) -> Ranking:
        """How the reading worklist is ordered."""
        settings = self.settings
        return Ranking(settings.uncertain_below, settings.rank_by_synthetic, settings.worklist_days)

    @property
    def trusted(self) -> TrustedSources:
        """Whose corrections and rejections count."""
        settings = self.settings
        return TrustedSources(
            frozenset(settings.correction_sources), frozenset(settings.rejection_sources)
        )

    @property
    def quiet(self) -> Quiet:
        """When a study is complete."""
        return Quiet(self.settings.quiet_s, self.settings.quiet_incomplete_s)
