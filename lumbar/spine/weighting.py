"""The contrast weighting of a slice, and the role that its weighting and plane give it."""

from enum import StrEnum

from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.image_content import kinds_of, objection
from lumbar.spine.slices import SliceHeader


class Weighting(StrEnum):
    """The contrast weighting of a slice, as far as TR, TE and TI show it."""

    T1 = "T1"
    T2 = "T2"
    STIR = "STIR"
    FLAIR = "FLAIR"
    PROTON_DENSITY = "proton density"
    GRADIENT_ECHO = "gradient echo or echo planar"
    UNKNOWN = "unknown weighting"


ROLES = {
    (Plane.SAGITTAL, Weighting.T1): Role.SAGITTAL_T1,
    (Plane.SAGITTAL, Weighting.T2): Role.SAGITTAL_T2,
    (Plane.SAGITTAL, Weighting.STIR): Role.SAGITTAL_T2,
    (Plane.AXIAL, Weighting.T2): Role.AXIAL_T2,
}

# A spin echo's TR is longer: with ScanningSequence RM, GE marks its gradient-echo localizers.
MIN_TR = 200.0
# An inversion time below this nulls fat (STIR), from 0.2 T to 3 T.
STIR_TI = (80.0, 300.0)
# In ScanOptions: FS PS3.3 C.8.3.1; SFS spectral. SAT_GEMS and the like are bands: no suppression.
FAT_SUPPRESSION = {"FS", "SFS", "FATSAT", "FAT_SAT", "FAT SAT", "SPIR", "SPAIR", "WE"}
# PS3.3 C.8.3.1 knows GR and EP; the others are written by scanners and converters.
GRADIENT_ECHO = {"GR", "EP", "GE", "GRE", "FE", "FE3D", "FFE", "TFE", "SSFP"}
# In ScanOptions, of an inversion recovery whose ScanningSequence is SE (GE).
INVERSION_OPTIONS = {"IR", "IR_GEMS", "T1FLAIR_GEMS", "T2FLAIR_GEMS"}
# What names the weighting of an inversion recovery without TI: AcquisitionContrast and value 3 of
# ImageType (PS3.3 C.8.13.3, C.8.13.1), and GE's ScanOptions.
NAMED = {
    "STIR": Weighting.STIR,
    "T1": Weighting.T1,
    "T1FLAIR_GEMS": Weighting.T1,
    "FLUID_ATTENUATED": Weighting.FLAIR,
    "T2FLAIR_GEMS": Weighting.FLAIR,
}


def weighting(header: SliceHeader) -> Weighting:
    """The weighting, by ScanningSequence, TI, TE and TR (ms).

    An inversion time of 0 means that none is stated: GE and Hitachi write it that way. RM (research
    mode) says nothing: Siemens writes it for turbo spin echoes, Philips for Dixon images.
    """
    if header.weighting_by is not None:
        return header.weighting_by[0]
    sequence = set(header.scanning_sequence)
    repetition, echo = header.repetition_time, header.echo_time
    if GRADIENT_ECHO & sequence:
        return Weighting.GRADIENT_ECHO
    if repetition is None or echo is None or repetition < MIN_TR:
        return Weighting.UNKNOWN
    if header.inversion_time and not _only_fat_is_inverted(header, repetition):
        return _inversion_recovery(header.inversion_time, repetition, echo)
    if _is_inversion_recovery(header) and not header.inversion_time:
        return _without_inversion_time(header, repetition, echo)
    return _spin_echo(repetition, echo, short_repetition="SE" in sequence or "RM" in sequence)


def only_contrast_tells(header: SliceHeader) -> bool:
    """Whether the header leaves the weighting open, though it may be one that is read.

    The times are missing, or it is an inversion recovery that may be STIR, FLAIR or T1.
    """
    missing = header.repetition_time is None or header.echo_time is None
    inverted = _is_inversion_recovery(header) and not header.inversion_time
    return (missing or inverted) and weighting(header) is Weighting.UNKNOWN


def _is_inversion_recovery(header: SliceHeader) -> bool:
    return any(word.startswith("IR") for word in header.scanning_sequence) or bool(
        INVERSION_OPTIONS & set(header.scan_options)
    )


def _only_fat_is_inverted(header: SliceHeader, repetition: float) -> bool:
    """Whether TI is that of a spectral inversion of fat (SPAIR), which is no STIR."""
    suppressed = bool(FAT_SUPPRESSION & set(header.scan_options))
    return suppressed and repetition < 1000 and not _is_inversion_recovery(header)


def _inversion_recovery(inversion: float, repetition: float, echo: float) -> Weighting:
    if inversion > 1300:
        return Weighting.FLAIR
    if inversion >= STIR_TI[1]:
        # With a longer TE it is no T1; fluid may be nulled, if TR is short, even at such a TI.
        return Weighting.T1 if echo < 40 else Weighting.UNKNOWN
    if inversion >= STIR_TI[0]:
        return Weighting.STIR
    return _spin_echo(repetition, echo, short_repetition=False)


def _without_inversion_time(header: SliceHeader, repetition: float, echo: float) -> Weighting:
    """An inversion recovery: T1 ("T1 FLAIR") by its times, or what an element names."""
    for term in (header.content.contrast, *header.image_type[2:3], *header.scan_options):
        named = NAMED.get(term)
        # Philips writes T1 of whole multi-frame files, whatever they hold (dcm2niix issue 345).
        if named and not (named is Weighting.T1 and echo >= 40):
            return named
    return Weighting.T1 if echo < 30 and repetition <= 3000 else Weighting.UNKNOWN


def _spin_echo(repetition: float, echo: float, *, short_repetition: bool) -> Weighting:
    """``short_repetition``: a T2 may be a 3-D turbo spin echo (SPACE, CUBE, VISTA).

    Its TR is 1000–1500 ms and its TE 100–250 ms, because the refocusing angles vary.
    """
    if echo <= 35 and repetition <= 1200:
        return Weighting.T1
    if echo >= 60 and repetition >= 1400:
        return Weighting.T2
    if short_repetition and echo >= 80 and repetition >= 1000:
        return Weighting.T2
    return Weighting.PROTON_DENSITY if echo < 60 and repetition >= 1400 else Weighting.UNKNOWN


def role_of(header: SliceHeader) -> Role | None:
    """The role of a series of such slices; None if it has none.

    It depends on what the pixels mean, the plane and the weighting.
    """
    return None if objection(header) else ROLES.get((header.plane, weighting(header)))


def fat_suppressed(header: SliceHeader) -> bool:
    """Whether it is STIR, spectrally fat-saturated or a Dixon water image."""
    return (
        weighting(header) is Weighting.STIR
        or bool(FAT_SUPPRESSION & set(header.scan_options))
        or "water" in kinds_of(header)
    )
