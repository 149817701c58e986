"""All faults, in the order in which they are run."""

from types import ModuleType

from tests.faults import (
    crash_points,
    disk_full,
    interleaved,
    pacs_down,
    postgres_restart,
    power_cut,
    receiver_kill,
    redis_flush,
    sequences,
    worker_kill,
    worker_recovery,
)

SCENARIOS: dict[str, ModuleType] = {
    scenario.FAULT: scenario
    for scenario in (
        receiver_kill,
        power_cut,
        crash_points,
        worker_kill,
        worker_recovery,
        redis_flush,
        postgres_restart,
        interleaved,
        disk_full,
        pacs_down,
        sequences,
    )
}
