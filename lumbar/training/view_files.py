"""Views for the keypoint networks, drawn on all cores and stored as NumPy files."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import lumbar.phantoms
from lumbar.phantoms.chain import Numbering
from lumbar.phantoms.locator_views import Views
from lumbar.process_pool import process_pool

# Patients per file.
PATIENTS = 40


def write_views(
    folder: Path,
    draw: Callable[[int], list[Views]],
    patients: int,
    seed: int,
    advance: Callable[[int], None],
) -> list[Path]:
    """Writes the views of that many patients; returns the files.

    Files written earlier by the same phantom code are reused. ``advance`` is called with the
    number of patients done.
    """
    folder = folder / _code_sha256()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        range(first, min(first + PATIENTS, seed + patients))
        for first in range(seed, seed + patients, PATIENTS)
    ]
    with process_pool() as pool:
        files = []
        for part, file in zip(parts, pool.map(partial(_write, folder, draw), parts), strict=True):
            files.append(file)
            advance(len(part))
    return files


def _code_sha256() -> str:
    """Digest of the phantom code, as another version of it draws other views."""
    sources = sorted(Path(lumbar.phantoms.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _write(folder: Path, draw: Callable[[int], list[Views]], seeds: range) -> Path:
    file = folder / f"{seeds.start:08}-{len(seeds)}.npz"
    if not file.exists():
        write_file(file, [view for seed in seeds for view in draw(seed)])
    return file


def write_file(file: Path, views: list[Views]) -> None:
    """Writes views, all of one size, atomically."""
    staging = file.with_suffix(".staging.npz")
    np.savez(
        staging,
        images=np.stack([v.images for v in views]),
        positions=np.stack([v.positions for v in views]),
        points=np.stack([v.points for v in views]),
        transitional=np.array([v.numbering is not Numbering.USUAL for v in views]),
        lumbar=np.array([v.region == "lumbar" for v in views]),
    )
    staging.rename(file)
