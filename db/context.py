"""What every part of a site works on, wired in one place: settings, database, store."""

from dataclasses import dataclass
from typing import Self

from db import schema
from db.database import Database
from db.jobs import Backoff
from db.read_models.worklist_rows import Ranking
from db.studies import Quiet
from lumbar.settings import Settings
from lumbar.store.files import Store


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
            Permanent: the schema is another. DatabaseUnavailable: the database cannot be reached. WrongSetting: a bad URL.
        """
        database = Database.connect(settings.effective_database_url)
        schema.check(database)
        return cls(settings, database, Store(settings.home / "store"))

    @property
    def transient_backoff(self) -> Backoff:
        """How a job is tried again after what may pass: a PACS away, a disk full."""
        return Backoff(
            self.settings.attempts, self.settings.retry_base_s, self.settings.retry_longest_s
        )

    @property
    def fault_backoff(self) -> Backoff:
        """How a job is tried again after a fault of our own."""
        return Backoff(
            self.settings.fault_attempts, self.settings.retry_base_s, self.settings.retry_longest_s
        )

    @property
    def ranking(self) -> Ranking:
        """How the reading worklist is ordered."""
        settings = self.settings
        return Ranking(settings.uncertain_below, settings.rank_by_synthetic, settings.worklist_days)

    @property
    def quiet(self) -> Quiet:
        """When a study is complete."""
        return Quiet(self.settings.quiet_s, self.settings.quiet_incomplete_s)
