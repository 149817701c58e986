"""The registrar: registers what has arrived, in every share of the store, the oldest first.

Any number of them may run, on any host that has the store: a share is registered by one at a time,
and by another as soon as that one has died. Sources take turns, so that none makes others wait.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic

from db.context import SiteContext
from db.registration import BATCH, LATER, Registration
from lumbar.errors import NotDicom, Transient
from lumbar.log import get_logger
from lumbar.store.shares import ArrivedFile, Share

log = get_logger()

IDLE_S = 0.05  # between two looks at empty shares
RETRY_S = 1.0  # after a failure of the disk or the database
LISTING_S = 2.0  # for which one listing of a share is used
ATTEMPTS, FIRST_WAIT_S = 8, 10.0  # at one file; the wait is doubled each time: 21 minutes in all


@dataclass
class Registrar:
    """Registers until it is stopped; remembers which files to try again, and when."""

    site: SiteContext
    stop: Event = field(default_factory=Event)
    _failures: Counter[Path] = field(default_factory=Counter)
    _not_before: dict[Path, float] = field(default_factory=dict)  # by the monotonic clock

    def run(self) -> None:
        """Registers until ``stop`` is set; a batch under way is finished."""
        failing = False
        while not self.stop.is_set():
            try:
                registered = self.register_arrived()
                failing = False
            except Transient as error:
                if not failing:
                    log.warning("registration.waits", why=str(error))
                failing = True
                self.stop.wait(RETRY_S)
            except Exception:  # the loop must survive any error of a round
                log.exception("registration.fault")
                self.stop.wait(RETRY_S)
            else:
                if not registered:
                    self.stop.wait(IDLE_S)

    def register_arrived(self, min_age_s: float = 0) -> int:
        """Registers the files of each share that no other process is registering.

        With ``min_age_s``, only those that have waited for so long. Returns how many were
        registered or quarantined.

        Raises:
            Transient: the disk or the database failed.
        """
        done = 0
        for share in self.site.store.shares():
            try:
                done += self._register(share, min_age_s)
                share.remove_if_dead()
            except OSError as error:  # of this share: the others go on
                self._log_share(share, error)
        return done

    def _register(self, share: Share, min_age_s: float) -> int:
        done, began = 0, monotonic()
        registration = Registration(self.site.database, self.site.store, self.site.trusted)
        with share.registering() as allowed:
            files = self._due(share, min_age_s) if allowed else []
            for batch in _batches(files):
                if self.stop.is_set() or monotonic() - began > LISTING_S:
                    break
                for file, outcome in zip(batch, registration.register(batch), strict=True):
                    done += self._settled(registration, file, outcome)
        return done

    def _due(self, share: Share, min_age_s: float) -> list[ArrivedFile]:
        now = monotonic()
        due = [
            file
            for file in share.arrived()
            if file.has_waited(min_age_s) and self._not_before.get(file.path, now) <= now
        ]
        return _in_turns(due)

    def _settled(self, registration: Registration, file: ArrivedFile, outcome: object) -> bool:
        """Whether the file has left ``arrived``; one that fails again and again is quarantined."""
        if outcome is LATER:
            return False
        if isinstance(outcome, Transient):
            self._failures[file.path] += 1
            failures = self._failures[file.path]
            log.warning("registration.failed", attempt=failures, why=str(outcome))
            if failures < ATTEMPTS:
                self._not_before[file.path] = monotonic() + FIRST_WAIT_S * 2 ** (failures - 1)
                return False
            registration.quarantine(file, NotDicom(str(outcome)))
        self._failures.pop(file.path, None)
        self._not_before.pop(file.path, None)
        return True

    def _log_share(self, share: Share, error: OSError) -> None:
        """Logs once a while that a share cannot be used."""
        if self._not_before.get(share.folder, 0) <= monotonic():
            self._not_before[share.folder] = monotonic() + 60
            reason = error.strerror or type(error).__name__
            log.error("registration.share", share=share.folder.name, why=reason)


def _in_turns(files: Sequence[ArrivedFile]) -> list[ArrivedFile]:
    """One file of each source after the other, the oldest first."""
    seen: Counter[str] = Counter()
    turns = []
    for file in files:
        turns.append((seen[file.source], file.received_ns))
        seen[file.source] += 1
    return [file for _, file in sorted(zip(turns, files, strict=True), key=lambda pair: pair[0])]


def _batches(files: Sequence[ArrivedFile]) -> Iterator[Sequence[ArrivedFile]]:
    for start in range(0, len(files), BATCH):
        yield files[start : start + BATCH]
