"""The weighting of a series by what its images show, for headers whose times show none.

CSF in the dural sac is brighter than marrow on T2 and STIR, and darker on T1; fat is bright on T1
and T2, and dark on STIR. The keypoint network finds the sac on any contrast. The ratios are limits
between what the signal equation gives for usual times; between them nothing is decided.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lumbar.errors import NotAnalysable, NotDicom
from lumbar.spine.anatomy import Plane
from lumbar.spine.finding_points import locate_sac
from lumbar.spine.keypoint_input import (
    AXIAL,
    CELL_PIXELS,
    SAGITTAL,
    Image,
    KeypointDetector,
    ReadSlice,
    picture,
)
from lumbar.spine.label_discs import best_sequence
from lumbar.spine.levels import MIDLINE_PRESENCE, MIN_PRESENCE
from lumbar.spine.sagittal_maps import examine
from lumbar.spine.slices import SliceHeader, Vector
from lumbar.spine.stacks import build_stacks
from lumbar.spine.weighting import Weighting


class Limits(NamedTuple):
    """Of CSF relative to what lies in front of the canal: at most on T1, at least on T2."""

    dark: float
    bright: float


# CSF relative to marrow, by the signal equation: 0.2–0.4 on T1, 0.8–1.0 on proton density, 1.5–2.7
# on T2. On axial slices discs lie in front, too: 0.5, 1.0 and 2.5–7. Fat near the sac raises T1.
LIMITS = {Plane.SAGITTAL: Limits(0.85, 1.2), Plane.AXIAL: Limits(0.85, 1.8)}
# Fat relative to CSF: from 2.3 on T1, 1.3–2.0 on proton density, 0.5–2 on T2, 0.2–0.4 on STIR;
# STIR's fat is not brighter than marrow either.
BRIGHT_FAT, DARK_FAT, DARK_FAT_TO_MARROW = 2.1, 0.45, 1.2
# Distances from the middle of the canal, mm: CSF is sought within the first, as the middle is often
# located 2 mm too far back. Marrow lies in front of it, fat behind.
SAC_MM = {Plane.SAGITTAL: range(-4, 7, 2), Plane.AXIAL: range(-2, 3, 2)}
MARROW_MM, FAT_MM = 23, range(12, 60, 5)
CSF_RADIUS_MM, MARROW_RADIUS_MM, FAT_RADIUS_MM = 2.5, 5.0, 3.0
FAT_PERCENTILE = 90  # of the pixels behind the canal, where muscle and bone lie too
MIN_SAMPLES = 3  # one of a single axial slice
AXIAL_SLICES = 10  # examined, evenly spread

WORDS = {"T1": Weighting.T1, "T2": Weighting.T2, "STIR": Weighting.STIR, "TIRM": Weighting.STIR}
OTHER_WORDS = {"PD", "FLAIR"}  # a T2 or double echo that is not read as T2


class Sample(NamedTuple):
    """Brightness at one vertebra or on one axial slice, in any unit linear in the signal."""

    csf: float
    marrow: float
    fat: float


@np.errstate(over="ignore", invalid="ignore")  # of absurd positions in a header
def weighting_of_images(
    series: Sequence[SliceHeader], read: ReadSlice, keypoints: KeypointDetector
) -> Weighting | None:
    """T1, T2 or STIR by the contrast of a series in one plane; None if none of these is certain.

    STIR stands for any T2 with dark fat. On axial slices it is not told from T2.
    """
    plane = series[0].plane
    if plane is Plane.SAGITTAL:
        samples = _sagittal_samples(series, read, keypoints)
        return weighting_of_samples(samples, LIMITS[plane], MIN_SAMPLES)
    if plane is Plane.AXIAL:
        samples = _axial_samples(series, read, keypoints)
        minimum = min(MIN_SAMPLES, len(series))
        weighting = weighting_of_samples(samples, LIMITS[plane], minimum)
        return Weighting.T2 if weighting is Weighting.STIR else weighting
    return None


def weighting_of_samples(
    samples: Iterable[Sample], limits: Limits, minimum: int
) -> Weighting | None:
    """The weighting by the median ratios; None if it is unclear, or of less than ``minimum``."""
    usable = [s for s in samples if min(s) > 0]
    if len(usable) < minimum:
        return None
    csf = float(np.median([s.csf / s.marrow for s in usable]))
    fat = float(np.median([s.fat / s.csf for s in usable]))
    if csf <= limits.dark and fat >= BRIGHT_FAT:
        return Weighting.T1
    if csf >= limits.bright:
        suppressed = fat <= DARK_FAT and fat * csf <= DARK_FAT_TO_MARROW
        return Weighting.STIR if suppressed else Weighting.T2
    return None


def weighting_of_description(description: str) -> Weighting | None:
    """T1, T2 or STIR by the words of a SeriesDescription; None if it names none, or several.

    "T2/STIR" is STIR; T2* and FLAIR are not T2.
    """
    pattern = r"(?<![A-Z0-9])(T1|T2|STIR|TIRM|PD|FLAIR)W?I?(?![A-Z0-9*])"
    words = set(re.findall(pattern, description.upper().replace("_", " ")))
    named = {WORDS[word] for word in words if word in WORDS}
    if Weighting.T1 in named:
        return Weighting.T1 if len(named) == 1 and "PD" not in words else None
    if words & OTHER_WORDS:
        return None
    return Weighting.STIR if Weighting.STIR in named else next(iter(named), None)


def _sagittal_samples(
    series: Sequence[SliceHeader], read: ReadSlice, keypoints: KeypointDetector
) -> Iterator[Sample]:
    """One sample per vertebra and slice on which the canal is seen above and below it."""
    try:
        maps = examine(build_stacks(series)[0], read, keypoints)
    except NotAnalysable:
        return
    sequence = best_sequence(maps.combined())
    if sequence is None:
        return
    presence = maps.canal_presence(sequence.positions)
    discs = sorted(sequence.positions)
    for above, below in pairwise(discs):
        upper, lower = (_pixel(sequence.positions[disc]) for disc in (above, below))
        down = (lower - upper) / np.linalg.norm(lower - upper)
        forwards = np.array([-down[1], down[0]])  # to the left: a picture shows the front there
        for n, slice_maps in enumerate(maps.slices):
            if min(presence[above][n], presence[below][n]) >= MIDLINE_PRESENCE:
                pixels = slice_maps.picture.pixels
                yield _sample(pixels, (upper + lower) / 2, forwards, Plane.SAGITTAL)


def _axial_samples(
    series: Sequence[SliceHeader], read: ReadSlice, keypoints: KeypointDetector
) -> Iterator[Sample]:
    """One sample per slice on which the dural sac is seen."""
    slices = [header for stack in build_stacks(series) for header in stack.slices]
    chosen = np.unique(np.linspace(0, len(slices) - 1, AXIAL_SLICES).round().astype(int))
    views = []
    for header in (slices[n] for n in chosen):
        try:
            views.append(picture(read(header), header, header.centre, AXIAL))
        except NotDicom:
            continue
    if not views:
        return
    for view, heat in zip(views, keypoints.axial(np.stack([v.pixels for v in views])), strict=True):
        mass, sac = locate_sac(view, heat)
        if mass >= MIN_PRESENCE:
            yield _sample(view.pixels, view.to_pixel(sac), np.array([0.0, -1.0]), Plane.AXIAL)


def _pixel(cell: Vector) -> Vector:
    """The picture's (column, row) of a position in cells of a heat map."""
    return cell * CELL_PIXELS + (CELL_PIXELS - 1) / 2


def _sample(pixels: Image, canal: Vector, forwards: Vector, plane: Plane) -> Sample:
    """The sample around the canal's middle, (column, row); ``forwards``: unit vector, in pixels."""
    signal = np.square(pixels)  # pictures hold the signal's square root
    mm = (AXIAL if plane is Plane.AXIAL else SAGITTAL).mm

    def around(distance: float, radius: float) -> Image:
        return _disc(signal, canal + forwards * (distance / mm), radius / mm)

    csf = max(_median(around(distance, CSF_RADIUS_MM)) for distance in SAC_MM[plane])
    behind = np.concatenate([around(-distance, FAT_RADIUS_MM) for distance in FAT_MM])
    fat = float(np.percentile(behind, FAT_PERCENTILE)) if behind.size else 0.0
    return Sample(csf, _median(around(MARROW_MM, MARROW_RADIUS_MM)), fat)


def _disc(signal: Image, centre: Vector, radius: float) -> Image:
    """The pixels within a radius of a point."""
    rows, columns = np.ogrid[: signal.shape[0], : signal.shape[1]]
    within: Image = signal[np.hypot(columns - centre[0], rows - centre[1]) <= radius]
    return within


def _median(pixels: Image) -> float:
    return float(np.median(pixels)) if pixels.size else 0.0
