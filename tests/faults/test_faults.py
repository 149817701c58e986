"""A few rounds of every fault; ``make faults`` runs them all."""

from collections.abc import Iterator

import pytest

from tests.faults import interleaved, power_cut
from tests.faults.outcome import Ground
from tests.faults.scenarios import SCENARIOS

SEED = 20261125
ROUNDS = {"receiver-kill": 3, "worker-kill": 4, "redis-flush": 2}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("faults"), SEED)
    yield ground
    ground.close()


@pytest.mark.parametrize("fault", [name for name in SCENARIOS if name != interleaved.FAULT])
def test_nothing_acknowledged_is_lost_duplicated_or_shown_before_it_is_whole(ground, fault):
    outcome = SCENARIOS[fault].run(ground, ROUNDS.get(fault, 1))
    if outcome.not_run:
        pytest.skip(outcome.note)
    assert outcome.violations == []


def test_studies_interleaved_sent_twice_and_late_stay_apart_and_whole(ground):
    assert interleaved.run(ground, 1, studies=25).violations == []


@pytest.mark.parametrize("ignore_fsync", ["all", "folders"])
def test_a_store_whose_fsync_does_nothing_is_found_out(ground, ignore_fsync):
    assert power_cut.run(ground, 1, ignore_fsync).lost
