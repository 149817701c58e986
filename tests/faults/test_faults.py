"""A few rounds of every fault; ``make faults`` runs all of them."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.faults import crash_points, interleaved, pacs_down, power_cut, worker_recovery
from tests.faults.outcome import Environment, Outcome
from tests.faults.scenarios import SCENARIOS

pytestmark = pytest.mark.slow

SEED = 20261125
ROUNDS = {"sequences": 8, "receiver-kill": 2, "worker-kill": 4, "redis-flush": 1}
SEPARATE = (crash_points.FAULT, interleaved.FAULT, pacs_down.FAULT, worker_recovery.FAULT)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    environment = Environment(tmp_path_factory.mktemp("faults"), SEED)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def concurrently(environment: Environment) -> Iterator[dict[str, Future[Outcome]]]:
    """A scenario that waits half a minute for a timeout, and one that fits in meanwhile."""
    with ThreadPoolExecutor() as pool:
        yield {
            pacs_down.FAULT: pool.submit(pacs_down.run, environment, 1),
            "folders": pool.submit(power_cut.run, environment, 1, ignore_fsync="folders"),
        }


@pytest.mark.parametrize("fault", [name for name in SCENARIOS if name not in SEPARATE])
def test_nothing_acknowledged_is_lost_duplicated_or_shown_incomplete(environment, fault):
    outcome = SCENARIOS[fault].run(environment, ROUNDS.get(fault, 1))
    if outcome.not_run:
        pytest.skip(outcome.note)
    assert outcome.violations == []


def test_studies_interleaved_sent_twice_and_late_stay_apart_and_complete(environment):
    assert interleaved.run(environment, 1, studies=10).violations == []


def test_a_report_survives_faulty_pacs(concurrently):
    assert concurrently[pacs_down.FAULT].result().violations == []


def test_losses_are_detected_when_fsync_of_folders_is_ignored(concurrently):
    assert concurrently["folders"].result().lost


@pytest.mark.serial
def test_a_job_survives_its_worker(environment):
    assert worker_recovery.run(environment, 1).violations == []
