"""What every part of a site works on, wired in one place: settings, database, store."""

from dataclasses import dataclass
from typing import Self

from db import schema
from db.jobs import Backoff
from db.session import Database
from db.tables import JobKind
from lumbar.settings import Settings
from lumbar.store.files import Store


@dataclass(frozen=True)
class Site:
    """An open site; one per process."""

    settings: Settings
    database: Database
    store: Store

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connects, and refuses a database whose schema is not this code's.

        Raises:
            Permanent: the schema is another. DatabaseAway: the database cannot be reached. WrongSetting: a bad URL.
        """
        database = Database.connect(settings.effective_database_url)
        schema.check(database)
        return cls(settings, database, Store(settings.home / "store"))

    @property
    def backoffs(self) -> dict[JobKind, Backoff]:
        """How often and how patiently each kind of job is tried."""
        settings = self.settings
        attempts = {JobKind.ANALYSE: settings.analysis_attempts, JobKind.DELIVER: settings.delivery_attempts}
        return {
            kind: Backoff(tries, settings.worker_losses, settings.retry_base_s, settings.retry_longest_s)
            for kind, tries in attempts.items()
        }
