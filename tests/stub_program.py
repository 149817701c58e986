"""`lumbar` with stub networks, for its child processes too: ``python -m tests.stub_program up``.

The analysis of a study whose UID names a file in the folder ``held`` waits until the file is gone.
``TESTS_READING=headers`` stubs the whole reading (``tests.faults.stub_reading``).
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import commands
from commands import services
from lumbar.spine.keypoint_input import AXIAL, SAGITTAL, Framing
from lumbar.spine.label_discs import CELL_MM, SPACING_MM
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from tests.faults import stub_reading
from worker import analysis, preview

HELD = Path("held")
SIGMA = 1.3  # cells
DETAIL = (
    0.012  # mean difference of neighbouring pixels, 0–1; a phantom's is .02, a smooth ramp's .006
)


class StubKeypoints:
    """Every picture with some detail shows a usual spine in its middle, every axial one a sac."""

    def sagittal(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = 12 + np.cumsum([0, *SPACING_MM]) / CELL_MM
        places = [(48, row) for row in rows] + [(47, row - 2) for row in rows[2:7]]
        detail = abs(np.diff(pictures, axis=2)).mean(axis=(1, 2)) > DETAIL
        return seen_at(places, SAGITTAL, len(pictures)) * detail[:, None, None, None]

    def border(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros(len(pictures), np.float32)

    def axial(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return seen_at([(32, 32), (36, 30), (28, 30)], AXIAL, len(pictures))


def seen_at(
    places: Sequence[tuple[float, float]], framing: Framing, count: int
) -> NDArray[np.float32]:
    """Every point with certainty, as a blob about its (column, row) in cells."""
    rows, columns = np.mgrid[: framing.cells, : framing.cells]
    blobs = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2)) for x, y in places]
    heat = np.stack([0.95 * blob / blob.sum() for blob in blobs], axis=-1)
    return np.repeat(heat[np.newaxis], count, axis=0).astype(np.float32)


class StubNetworks:
    """Every crop shows every condition alike and is graded by its mean brightness.

    The same crop gives the same severity.
    """

    keypoints = StubKeypoints()
    identity = BundleIdentity("stub", "1", "0" * 64, TrainedOn.NOTHING, "1")

    def conditions(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(crops), 6), 1 / 6, np.float32)

    def severities(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        mean = crops.mean(axis=(1, 2)).clip(0, 1)
        return np.stack([mean, (1 - mean) / 2, (1 - mean) / 2], axis=1)


def hold(analyse):
    def analyse_when_released(instances, networks):
        while (HELD / instances[0].header.StudyInstanceUID).exists():
            time.sleep(0.05)
        return analyse(instances, networks)

    return analyse_when_released


if __name__ == "__main__":
    services.PROGRAM = (sys.executable, "-m", "tests.stub_program")
    services.load_networks = lambda settings: StubNetworks  # type: ignore[assignment]
    if os.environ.get("TESTS_READING") == "headers":
        stub_reading.replace()
    analysis.analyse = hold(analysis.analyse)
    preview.analyse = hold(preview.analyse)
    commands.main()
