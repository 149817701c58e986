"""A few rounds of every fault; ``make faults`` runs them all."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.faults import interleaved, pacs_down, power_cut, worker_recovery
from tests.faults.outcome import Ground, Outcome
from tests.faults.scenarios import SCENARIOS

pytestmark = [pytest.mark.slow, pytest.mark.serial]

SEED = 20261125
ROUNDS = {"receiver-kill": 2, "worker-kill": 4, "redis-flush": 1}
BY_THEMSELVES = (interleaved.FAULT, pacs_down.FAULT, worker_recovery.FAULT)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("faults"), SEED)
    yield ground
    ground.close()


@pytest.fixture(scope="module")
def side_by_side(ground: Ground) -> Iterator[dict[str, Future[Outcome]]]:
    """Two that wait half a minute for somebody who does not answer, and one that fits in meanwhile."""
    with ThreadPoolExecutor() as pool:
        runs = {
            scenario.FAULT: pool.submit(scenario.run, ground, 1)
            for scenario in (pacs_down, worker_recovery)
        }
        yield runs | {"folders": pool.submit(power_cut.run, ground, 1, ignore_fsync="folders")}


@pytest.mark.parametrize("fault", [name for name in SCENARIOS if name not in BY_THEMSELVES])
def test_nothing_acknowledged_is_lost_duplicated_or_shown_before_it_is_whole(ground, fault):
    outcome = SCENARIOS[fault].run(ground, ROUNDS.get(fault, 1))
    if outcome.not_run:
        pytest.skip(outcome.note)
    assert outcome.violations == []


def test_studies_interleaved_sent_twice_and_late_stay_apart_and_whole(ground):
    assert interleaved.run(ground, 1, studies=10).violations == []


@pytest.mark.parametrize("fault", [pacs_down.FAULT, worker_recovery.FAULT])
def test_a_report_outlives_bad_pacs_and_a_job_its_worker(side_by_side, fault):
    assert side_by_side[fault].result().violations == []


def test_a_store_whose_fsync_of_folders_does_nothing_is_found_out(side_by_side):
    assert side_by_side["folders"].result().lost
