"""The terms of a finding: five disc levels, five conditions, three severities.

The 25 findings of a study are every condition at every level. Names and order follow the RSNA 2024
lumbar-spine data set (``train.csv`` and ``sample_submission.csv``), so that exports match it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """A lumbar disc level, cranial to caudal."""

    L1_L2 = "l1_l2"
    L2_L3 = "l2_l3"
    L3_L4 = "l3_l4"
    L4_L5 = "l4_l5"
    L5_S1 = "l5_s1"

    @property
    def label(self) -> str:
        """As radiologists write it: ``L4/L5``."""
        return self.value.upper().replace("_", "/")


class Severity(StrEnum):
    """How severe a stenosis is, ascending; every triple of probabilities has this order."""

    NORMAL_MILD = "normal_mild"
    MODERATE = "moderate"
    SEVERE = "severe"

    @property
    def label(self) -> str:
        """As the RSNA labels write it: ``Normal/Mild``."""
        return {
            "normal_mild": "Normal/Mild",
            "moderate": "Moderate",
            "severe": "Severe",
        }[self.value]


class Side(StrEnum):
    """The patient's side, never the viewer's. In DICOM's LPS, +x is the patient's left."""

    LEFT = "left"
    RIGHT = "right"


class Plane(StrEnum):
    """Acquisition plane: the axis closest to the slice normal."""

    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    AXIAL = "axial"


class Role(StrEnum):
    """What a series is used for."""

    SAGITTAL_T1 = "sagittal_t1"
    SAGITTAL_T2 = "sagittal_t2"  # T2 or STIR
    AXIAL_T2 = "axial_t2"

    @property
    def label(self) -> str:
        """As the RSNA series descriptions write it."""
        return {
            "sagittal_t1": "Sagittal T1",
            "sagittal_t2": "Sagittal T2/STIR",
            "axial_t2": "Axial T2",
        }[self.value]


class Condition(StrEnum):
    """A kind of stenosis, in the alphabetical order of the RSNA rows."""

    LEFT_NEURAL_FORAMINAL_NARROWING = "left_neural_foraminal_narrowing"
    LEFT_SUBARTICULAR_STENOSIS = "left_subarticular_stenosis"
    RIGHT_NEURAL_FORAMINAL_NARROWING = "right_neural_foraminal_narrowing"
    RIGHT_SUBARTICULAR_STENOSIS = "right_subarticular_stenosis"
    SPINAL_CANAL_STENOSIS = "spinal_canal_stenosis"

    @property
    def label(self) -> str:
        """In words: ``Left neural foraminal narrowing``."""
        return self.value.replace("_", " ").capitalize()

    @property
    def side(self) -> Side | None:
        """The patient's side, or None for the canal."""
        prefix = self.value.split("_")[0]
        return Side(prefix) if prefix in ("left", "right") else None

    @property
    def role(self) -> Role:
        """The role of the series on which the RSNA readers graded it."""
        if "foraminal" in self.value:
            return Role.SAGITTAL_T1
        return Role.AXIAL_T2 if "subarticular" in self.value else Role.SAGITTAL_T2


@dataclass(frozen=True, order=True)
class FindingKey:
    """Identifies one of a study's 25 findings."""

    condition: Condition
    level: Level

    @property
    def parts(self) -> tuple[Condition, Level]:
        return self.condition, self.level

    def row_id(self, study: str) -> str:
        """The RSNA submission's row name, ``<study>_<condition>_<level>``."""
        return f"{study}_{self.condition}_{self.level}"


ALL_FINDINGS: tuple[FindingKey, ...] = tuple(FindingKey(c, v) for c in Condition for v in Level)
