"""What happens in a compressed week: which study is sent when, by whom, and what else befalls it.

All of it follows from the seed. Times are in days of the compressed week.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SENDERS = 6
NIGHT, MORNING = 22 / 24, 6 / 24


class Kind(StrEnum):
    """What befalls a study after its images have been sent."""

    PLAIN = "plain"
    MIXED = "sent with other objects"
    RESENT = "sent again, unchanged"
    LATE = "a late image"
    CORRECTED = "sent again under another patient"
    REJECTED = "an image rejected by a note"
    RETURNED = "our report sent back to us"


class Fault(StrEnum):
    """What befalls the system; ``PlannedFault`` says when, and for how long."""

    PACS_NIGHT = "the PACS is down"
    ARCHIVE_NIGHT = "the archive is down"
    REDIS_REPLICA = "Redis is a replica"
    REDIS_RESTART = "Redis restarts, empty"
    POSTGRES_READ_ONLY = "PostgreSQL is read-only"
    POSTGRES_RESTART = "PostgreSQL restarts"
    FULL_DISK = "the store's disk is full"
    CLOCK = "the clocks are a day ahead"
    RESTORE = "the database is restored"  # from a copy made at its beginning, at its end


@dataclass(frozen=True)
class PlannedStudy:
    """``again``: when what its kind says happens."""

    number: int
    sender: int
    at: float
    slices: int
    kind: Kind
    again: float


@dataclass(frozen=True)
class PlannedFault:
    fault: Fault
    begins: float
    ends: float


@dataclass(frozen=True)
class Week:
    """``days``: after which nothing is planned any more."""

    days: int
    studies: tuple[PlannedStudy, ...]
    faults: tuple[PlannedFault, ...]


def plan(seed: int, studies: int, days: int) -> Week:
    """A week of so many studies; each kind at least once where there are ten or more."""
    rng = random.Random(f"week {seed}")
    kinds = [kind for kind in Kind if kind is not Kind.PLAIN]
    drawn = [*kinds * max(1, studies // 60), *[Kind.MIXED] * (studies // 10)][:studies]
    drawn += [Kind.PLAIN] * (studies - len(drawn))
    rng.shuffle(drawn)
    planned = []
    for number, kind in enumerate(drawn, 1):
        at = _working_hour(rng, days)
        again = at + rng.uniform(0.2, 0.8)
        sender = rng.randint(1, SENDERS)
        planned.append(PlannedStudy(number, sender, at, rng.randint(1, 3), kind, again))
    faults = sorted(_faults(rng, days), key=lambda fault: fault.begins)
    return Week(days, tuple(sorted(planned, key=lambda study: study.at)), tuple(faults))


def _working_hour(rng: random.Random, days: int) -> float:
    """Most examinations are made by day; emergencies by night."""
    day = rng.randrange(days - 1)
    return day + (rng.uniform(7, 19) if rng.random() < 0.85 else rng.uniform(0, 24)) / 24


def _faults(rng: random.Random, days: int) -> Iterator[PlannedFault]:
    for night in range(0, days - 1, 2):
        yield PlannedFault(Fault.PACS_NIGHT, night + NIGHT, night + 1 + MORNING)
    yield PlannedFault(Fault.ARCHIVE_NIGHT, NIGHT, 1 + MORNING)
    # Not two of these at once: what each of them does alone is to be seen.
    daytime = [Fault.REDIS_REPLICA, Fault.POSTGRES_READ_ONLY, Fault.REDIS_RESTART]
    daytime += [Fault.POSTGRES_RESTART, Fault.FULL_DISK, Fault.CLOCK]
    rng.shuffle(daytime)
    hours = (days - 1) / len(daytime)  # days for each
    for place, fault in enumerate(daytime):
        begins = (place + rng.uniform(0.1, 0.4)) * hours
        yield PlannedFault(fault, begins, begins + rng.uniform(0.2, 0.4) * hours)
    begins = days - 1 - rng.uniform(0.3, 0.6)
    yield PlannedFault(Fault.RESTORE, begins, days - 1)
