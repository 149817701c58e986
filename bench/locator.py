"""Time to locate the levels of a study of 90 slices and cut its crops: ``python -m bench.locator``.

Decoding is included. For comparison: the time to read and decode all of its slices.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.networks import load_keypoints
from lumbar.phantoms import write_study
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.roles import assign_roles
from worker.pipeline import locate

SLICES = 90
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    keypoints = load_keypoints()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        study(folder, arguments.seed)
        stages: dict[str, list[float]] = {}
        # The first round compiles the networks and is not counted.
        for number in range(arguments.rounds + 1):
            times, decoded = measure(folder, keypoints)
            for name, seconds in times.items() if number else ():
                stages.setdefault(name, []).append(seconds)
    decoding = stages.pop("decode every slice")
    print(f"{SLICES} slices, {decoded} decoded; {arguments.rounds} rounds, median (worst), seconds")
    for name, times in stages.items():
        print(f"  {name:32} {np.median(times):.3f} ({max(times):.3f})")
    total = np.sum(list(stages.values()), axis=0)
    print(f"  {'total':32} {np.median(total):.3f} ({total.max():.3f})")
    print(
        f"  {'(comparison: decode every slice)':32} {np.median(decoding):.3f} ({max(decoding):.3f})"
    )


def measure(folder: Path, keypoints: KeypointDetector) -> tuple[dict[str, float], int]:
    times: dict[str, float] = {}
    instances, _ = timed(times, "headers", lambda: find_instances(folder, folder))
    slices = SliceReader(instances)
    roles = timed(times, "roles", lambda: assign_roles(slices.headers))
    timed(times, "levels, points, crops", lambda: locate(slices, roles, keypoints))
    decoded = slices.decoded
    fresh = SliceReader(instances)
    timed(times, "decode every slice", lambda: [fresh.read(header) for header in fresh.headers])
    return times, decoded


def timed(times: dict[str, float], name: str, call: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = call()
    times[name] = time.perf_counter() - start
    return result


def study(folder: Path, seed: int) -> None:
    """A phantom, with copies of its first slices as fat-suppressed series, ``SLICES`` in total."""
    write_study(folder, seed)
    files = sorted(folder.rglob("*.dcm"))
    for extra in range(SLICES - len(files)):
        copy = dcmread(files[extra])
        copy.SeriesInstanceUID = f"{copy.SeriesInstanceUID}.9"
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[str(extra)]
        )
        copy.ScanOptions = "FS"
        copy.save_as(folder / f"copy-{extra}.dcm")


if __name__ == "__main__":
    main()
