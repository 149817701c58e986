"""One slice as its header describes it: the input of every geometric rule."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar.spine.anatomy import Plane

if TYPE_CHECKING:
    from lumbar.spine.weighting import Weighting

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Content:
    """The elements besides ImageType that state what the pixels mean; empty if they do not.

    ``component`` is ComplexImageComponent or its GE equivalent, ``contrast`` AcquisitionContrast,
    ``calculation`` VolumeBasedCalculationTechnique, all in upper case. ``derivations`` are DCM
    codes, ``units`` is a UCUM code, and ``b_value`` is in s/mm².
    """

    component: str = ""
    contrast: str = ""
    calculation: str = ""
    derivations: tuple[str, ...] = ()
    units: str = ""
    b_value: float | None = None


@dataclass(frozen=True)
class SliceHeader:
    """A single-frame instance, or one frame of a multi-frame one.

    ``position`` (mm, LPS) is the centre of the first pixel; ``orientation`` holds the direction
    cosines along a row, then down a column; ``spacing`` is in mm between rows, then between columns
    (PS3.3 C.7.6.2, C.7.6.16.2). ``thickness`` is in mm, times are in ms; None if not in the header.
    ``scan_options`` has FS where fat is suppressed, and WS where water is. ``echo_number`` and
    ``temporal_position`` count from 1. ``weighting_by`` is a weighting that the times do not show,
    and what showed it ("contrast", "description"). ``file`` is the path the header was read from:
    UIDs may be missing or repeated.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None  # 1-based; None in a single-frame instance
    frame_of_reference_uid: str
    instance_number: int
    rows: int
    columns: int
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing: tuple[float, float]
    thickness: float | None
    repetition_time: float | None
    echo_time: float | None
    inversion_time: float | None
    scanning_sequence: tuple[str, ...]
    image_type: tuple[str, ...]
    scan_options: tuple[str, ...]
    contrast_agent: bool
    content: Content = Content()
    echo_number: int = 1
    temporal_position: int = 1
    weighting_by: "tuple[Weighting, str] | None" = None
    file: str = field(default="", compare=False)

    @cached_property
    def along_row(self) -> Vector:
        """Unit vector in the direction of increasing column index."""
        return np.array(self.orientation[:3])

    @cached_property
    def down_column(self) -> Vector:
        """Unit vector in the direction of increasing row index."""
        return np.array(self.orientation[3:])

    @cached_property
    def normal(self) -> Vector:
        """Unit vector perpendicular to the slice: row × column."""
        (a, b, c), (d, e, f) = self.orientation[:3], self.orientation[3:]
        return np.array([b * f - c * e, c * d - a * f, a * e - b * d])

    @cached_property
    def plane(self) -> Plane:
        """By the normal's largest component: an oblique axial L5/S1 slice still counts as axial."""
        return (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)[int(np.argmax(np.abs(self.normal)))]

    @cached_property
    def centre(self) -> Vector:
        """The point in mm (LPS) in the middle of the image, however it is stored."""
        return self.to_patient((self.columns - 1) / 2, (self.rows - 1) / 2)

    def to_patient(self, column: float, row: float) -> Vector:
        """The point in mm (LPS) of 0-based pixel coordinates whose integers are pixel centres."""
        down, across = self.spacing
        return (
            np.array(self.position)
            + self.along_row * across * column
            + self.down_column * down * row
        )

    def to_pixel(self, point: Vector) -> tuple[float, float]:
        """(column, row), 0-based, integers at pixel centres, of a point in mm (LPS).

        The point is projected onto the slice along its normal.
        """
        offset = np.asarray(point) - np.array(self.position)
        return (
            float(offset @ self.along_row) / self.spacing[1],
            float(offset @ self.down_column) / self.spacing[0],
        )

    def distance(self, point: Vector) -> float:
        """Signed distance in mm of a point from the slice's mid-plane, along ``normal``."""
        return float((np.asarray(point) - np.array(self.position)) @ self.normal)

    def contains(self, column: float, row: float) -> bool:
        """Whether pixel coordinates lie inside the image."""
        return -0.5 <= column < self.columns - 0.5 and -0.5 <= row < self.rows - 0.5
