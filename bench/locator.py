"""How long a whole study of 90 slices takes up to its crops, decoding included: ``python -m bench.locator``.

Side by side: the time it takes to read and decode every one of its slices, which a reader without roles would need.
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
    chosen = parser.parse_args()
    keypoints = load_keypoints()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        study(folder, chosen.seed)
        stages: dict[str, list[float]] = {}
        for turn in range(chosen.rounds + 1):  # the first one compiles
            taken, decoded = once(folder, keypoints)
            for name, seconds in taken.items() if turn else ():
                stages.setdefault(name, []).append(seconds)
    every = stages.pop("decode every slice")
    print(
        f"{SLICES} slices, {decoded} of them decoded; {chosen.rounds} rounds, median (worst), seconds"
    )
    for name, times in stages.items():
        print(f"  {name:32} {np.median(times):.3f} ({max(times):.3f})")
    total = np.sum(list(stages.values()), axis=0)
    print(f"  {'together':32} {np.median(total):.3f} ({total.max():.3f})")
    print(f"  {'(beside it: decode every slice)':32} {np.median(every):.3f} ({max(every):.3f})")


def once(folder: Path, keypoints: KeypointDetector) -> tuple[dict[str, float], int]:
    taken: dict[str, float] = {}
    instances, _ = timed(taken, "headers", lambda: find_instances(folder, folder))
    slices = SliceReader(instances)
    roles = timed(taken, "roles", lambda: assign_roles(slices.headers))
    timed(taken, "levels, points, crops", lambda: locate(slices, roles, keypoints))
    decoded = slices.decoded
    every = SliceReader(instances)
    timed(taken, "decode every slice", lambda: [every.read(header) for header in every.headers])
    return taken, decoded


def timed(taken: dict[str, float], name: str, call: Callable[[], T]) -> T:
    start = time.perf_counter()
    done = call()
    taken[name] = time.perf_counter() - start
    return done


def study(folder: Path, seed: int) -> None:
    """A phantom, and its first slices once more as further fat-suppressed series, until there are ``SLICES``."""
    write_study(folder, seed)
    files = sorted(folder.rglob("*.dcm"))
    for extra in range(SLICES - len(files)):
        again = dcmread(files[extra])
        again.SeriesInstanceUID = f"{again.SeriesInstanceUID}.9"
        again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[str(extra)]
        )
        again.ScanOptions = "FS"
        again.save_as(folder / f"again-{extra}.dcm")


if __name__ == "__main__":
    main()
