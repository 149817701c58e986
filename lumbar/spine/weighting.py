"""What makes the contrast of a slice, and what a slice of that contrast and plane is read for."""

from enum import StrEnum

from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.slices import SliceHeader


class Weighting(StrEnum):
    """What makes the contrast of a slice, as far as TR, TE and TI tell."""

    T1 = "T1"
    T2 = "T2"
    STIR = "STIR"
    FLAIR = "FLAIR"
    PROTON_DENSITY = "proton density"
    GRADIENT_ECHO = "gradient echo"
    UNKNOWN = "unknown weighting"


def weighting(header: SliceHeader) -> Weighting:
    """By ScanningSequence, TI, TE and TR; an inversion time of 0 is none (GE and Hitachi write it so)."""
    if {"GR", "EP", "RM"} & set(header.scanning_sequence):
        return Weighting.GRADIENT_ECHO
    repetition, echo, inversion = (
        header.repetition_time,
        header.echo_time,
        header.inversion_time or 0.0,
    )
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
    """What a series of such slices is read for, by plane and weighting alone."""
    if header.plane is Plane.SAGITTAL:
        roles = {
            Weighting.T1: Role.SAGITTAL_T1,
            Weighting.T2: Role.SAGITTAL_T2,
            Weighting.STIR: Role.SAGITTAL_T2,
        }
        return roles.get(weighting(header))
    return (
        Role.AXIAL_T2 if header.plane is Plane.AXIAL and weighting(header) is Weighting.T2 else None
    )


def dixon(header: SliceHeader) -> frozenset[str]:
    """Which of the Dixon images it is, by ImageType; empty where it is none."""
    names = {
        "W": "WATER",
        "F": "FAT",
        "IP": "IN_PHASE",
        "IN": "IN_PHASE",
        "OP": "OUT_PHASE",
        "OPP": "OUT_PHASE",
    }
    names |= {name: name for name in names.values()} | {"OPP_PHASE": "OUT_PHASE"}
    return frozenset(names[kind] for kind in header.image_type[2:] if kind in names)


def fat_suppressed(header: SliceHeader) -> bool:
    """STIR, spectral fat saturation or a Dixon water image."""
    return (
        weighting(header) is Weighting.STIR
        or "FS" in header.scan_options
        or "WATER" in dixon(header)
    )
