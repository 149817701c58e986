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
        base_s, longest_s = self.settings.retry_base_s, self.settings.retry_longest_s
        return {
            JobKind.ANALYSE: Backoff(self.settings.analysis_attempts, base_s, longest_s),
            JobKind.DELIVER: Backoff(self.settings.delivery_attempts, base_s, longest_s),
        }
