"""The contrast weighting of a slice, and the role that its weighting and plane give it."""

from enum import StrEnum

from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.slices import SliceHeader


class Weighting(StrEnum):
    """The contrast weighting of a slice, as far as TR, TE and TI show it."""

    T1 = "T1"
    T2 = "T2"
    STIR = "STIR"
    FLAIR = "FLAIR"
    PROTON_DENSITY = "proton density"
    GRADIENT_ECHO = "gradient echo"
    UNKNOWN = "unknown weighting"


ROLES = {
    (Plane.SAGITTAL, Weighting.T1): Role.SAGITTAL_T1,
    (Plane.SAGITTAL, Weighting.T2): Role.SAGITTAL_T2,
    (Plane.SAGITTAL, Weighting.STIR): Role.SAGITTAL_T2,
    (Plane.AXIAL, Weighting.T2): Role.AXIAL_T2,
}

# By value of ImageType.
DIXON_IMAGES = {
    "W": "WATER",
    "WATER": "WATER",
    "F": "FAT",
    "FAT": "FAT",
    "IP": "IN_PHASE",
    "IN": "IN_PHASE",
    "IN_PHASE": "IN_PHASE",
    "OP": "OUT_PHASE",
    "OPP": "OUT_PHASE",
    "OPP_PHASE": "OUT_PHASE",
    "OUT_PHASE": "OUT_PHASE",
}


def weighting(header: SliceHeader) -> Weighting:
    """The weighting, by ScanningSequence, TI, TE and TR (ms).

    An inversion time of 0 means no inversion: GE and Hitachi write it that way.
    """
    if header.weighting_by is not None:
        return header.weighting_by[0]
    if {"GR", "EP", "RM"} & set(header.scanning_sequence):
        return Weighting.GRADIENT_ECHO
    repetition, echo = header.repetition_time, header.echo_time
    inversion = header.inversion_time or 0.0
    if repetition is None or echo is None:
        return Weighting.UNKNOWN
    if inversion > 1300:
        return Weighting.FLAIR
    if inversion >= 300 and echo < 40:
        return Weighting.T1
    if 80 <= inversion < 300 and repetition > 1500:
        return Weighting.STIR
    if echo <= 35 and repetition <= 1200:
        return Weighting.T1
    if echo >= 60 and repetition >= 1400:
        return Weighting.T2
    return Weighting.PROTON_DENSITY if echo < 60 and repetition >= 1400 else Weighting.UNKNOWN


def role_of(header: SliceHeader) -> Role | None:
    """The role of a series of such slices, by plane and weighting alone; None if it has none."""
    return ROLES.get((header.plane, weighting(header)))


def dixon(header: SliceHeader) -> frozenset[str]:
    """The kinds of Dixon image that ImageType states; empty if it states none."""
    return frozenset(
        DIXON_IMAGES[value] for value in header.image_type[2:] if value in DIXON_IMAGES
    )


def fat_suppressed(header: SliceHeader) -> bool:
    """Whether it is STIR, spectrally fat-saturated or a Dixon water image."""
    return (
        weighting(header) is Weighting.STIR
        or "FS" in header.scan_options
        or "WATER" in dixon(header)
    )
