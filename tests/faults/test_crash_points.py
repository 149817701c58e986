"""Every call on the store from an image's arrival to its rows; ``make faults`` has all calls."""

import pytest

from tests.faults import crash_points
from tests.faults.outcome import Environment

pytestmark = pytest.mark.slow

STORE = "/store/"  # in the paths of its files


def test_an_acknowledged_image_survives_every_crash_point(tmp_path):
    outcome = crash_points.run(Environment(tmp_path, seed=1), 1, STORE)
    assert outcome.violations == []
    assert outcome.rounds > 100


def test_losses_are_detected_where_the_disk_ignores_fsync(tmp_path):
    environment = Environment(tmp_path, seed=1)
    outcome = crash_points.run(environment, 1, STORE, ignore_fsync="all", scenarios=["received"])
    assert outcome.lost
