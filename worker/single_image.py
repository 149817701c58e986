"""Classifies one image by itself: which condition it shows, and how severe it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.networks import Networks
from lumbar.reports.picture import AnnotatedSlice, draw_slice
from lumbar.spine.crops import CROP_MM, crop, is_blank
from lumbar.spine.findings import Probabilities
from lumbar.spine.roles import assign_roles, role_of
from lumbar.spine.slices import SliceHeader
from worker.series_weighting import with_weighting


@dataclass(frozen=True)
class Classification:
    """One crop as classified by both networks.

    ``conditions`` are in the order of ``Condition``, then "none"; all probabilities 0–1.
    """

    header: SliceHeader
    column: float
    row: float
    conditions: tuple[float, ...]
    severities: Probabilities


def classify(
    instances: Sequence[MRInstance], networks: Networks, point: tuple[float, float] | None = None
) -> Classification:
    """Classifies one image, cropped around a point (column, row; by default the centre).

    The result has no level and no side.

    Raises:
        NotAnalysable: there is not exactly one slice, its plane and weighting fit no role, the
            point lies outside the image, the crop is blank, or the image cannot be read.
    """
    slices = SliceReader(instances)
    if len(slices.headers) != 1:
        raise NotAnalysable(
            f"it holds {len(slices.headers)} slices, not one image; use `lumbar analyse`"
        )
    (header,) = with_weighting(slices, instances, networks.keypoints)
    role = role_of(header)
    if role is None:
        raise NotAnalysable(f"{assign_roles([header]).choices[0]}")
    column, row = point or ((header.columns - 1) / 2, (header.rows - 1) / 2)
    if not header.contains(column, row):
        raise NotAnalysable(
            f"the point lies outside the image of {header.columns} × {header.rows} pixels"
        )
    try:
        pixels = crop(slices.read(header), header, column, row, CROP_MM[role])[np.newaxis]
    except NotDicom as error:
        raise NotAnalysable(f"the image cannot be read: {error}") from error
    if is_blank(pixels):
        raise NotAnalysable(f"the image is blank around {column:g}, {row:g}")
    (conditions,), (severities,) = (
        networks.conditions(pixels).tolist(),
        networks.severities(pixels).tolist(),
    )
    return Classification(
        header, column, row, tuple(conditions), (severities[0], severities[1], severities[2])
    )


def picture_of(
    classification: Classification, instances: Sequence[MRInstance], notices: Sequence[str]
) -> bytes:
    """A PNG that shows where the image was cropped."""
    header = classification.header
    marks = {"here": header.to_patient(classification.column, classification.row)}
    return draw_slice(
        AnnotatedSlice("Where it was cropped", SliceReader(instances).read(header), header, marks),
        notices,
    )
