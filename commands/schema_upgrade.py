"""The schema's upgrade by `lumbar up`, beside the receiver, which needs no database."""

import threading

from db import schema
from db.database import Database
from lumbar.errors import LumbarError, WrongSetting
from lumbar.log import get_logger

log = get_logger()

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 5.0


class SchemaUpgrade:
    """Tries until it succeeds or ``stop`` is set: the database may be away, or in use.

    A process that ends during an upgrade leaves the old schema.
    """

    def __init__(self, database: Database, stop: threading.Event) -> None:
        self._database, self._stop = database, stop
        self._refused: WrongSetting | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schema-upgrade", daemon=True)

    def start(self) -> None:
        """Starts to try; returns at once."""
        self._thread.start()

    def done(self) -> bool:
        """Whether the database has this version's schema.

        Raises:
            WrongSetting: a setting is wrong, and trying again will not help.
        """
        if self._refused:
            raise self._refused
        return self._done.is_set()

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._upgraded() and not self._stop.wait(wait_s):
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _upgraded(self) -> bool:
        """Whether no further attempt is needed."""
        try:
            schema.upgrade(self._database)
        except WrongSetting as error:
            self._refused = error
        except LumbarError as error:
            log.error("schema.awaited", why=str(error))
            return False
        except Exception:  # a fault of ours is tried again, too: the receiver goes on meanwhile
            log.exception("schema.fault")
            return False
        else:
            self._database.close()
            self._done.set()
        return True
