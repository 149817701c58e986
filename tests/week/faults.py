"""How each planned fault begins and ends, with the servers that a hospital has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.week.plan import Fault

if TYPE_CHECKING:
    from tests.week.run import Hospital

BeginAndEnd = tuple[Callable[[], object], Callable[[], object]]


def possible_faults(hospital: "Hospital") -> dict[Fault, BeginAndEnd]:
    """Those that can be: a full disk needs root, and SQLite neither fails over nor has a broker."""
    pacs, archive = hospital.archives["pacs"], hospital.archives["archive"]
    clock, day_s = hospital.clock, hospital.day_s
    faults: dict[Fault, BeginAndEnd] = {
        Fault.PACS_NIGHT: (pacs.kill, pacs.__enter__),
        Fault.ARCHIVE_NIGHT: (archive.kill, archive.__enter__),
        Fault.CLOCK: (lambda: clock.set(day_s), lambda: clock.set(0)),
        Fault.RESTORE: (hospital.copy_database, hospital.restore_database),
    }
    if hospital.disk.mounted:
        faults[Fault.FULL_DISK] = (hospital.disk.fill, hospital.disk.free)
    redis, postgres = hospital.redis, hospital.postgres
    if redis is not None and postgres is not None:
        faults |= {
            Fault.REDIS_REPLICA: (
                lambda: redis.replicate("127.0.0.1 1"),
                lambda: redis.replicate("NO ONE"),
            ),
            Fault.REDIS_RESTART: (redis.kill, redis.__enter__),
            Fault.POSTGRES_READ_ONLY: (
                lambda: postgres.set_read_only(True),
                lambda: postgres.set_read_only(False),
            ),
            Fault.POSTGRES_RESTART: (postgres.stop_at_once, postgres.__enter__),
        }
    return faults
