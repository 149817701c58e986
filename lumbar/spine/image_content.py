"""What an image's pixels mean, as its header states it.

Only the signal of tissue is read: a magnitude image, or the water or in-phase image of a Dixon
acquisition. Everything else has a plain reason why not; ``docs/what-is-read.md`` lists them.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from lumbar.spine.slices import Content, SliceHeader

UNSTATED_COMPONENT = "an image of which it is not stated whether it shows magnitude or phase"
UNSTATED_DIXON = "a Dixon image of which it is not stated what it shows"
FAT = "a Dixon fat image"
WATER_SUPPRESSED = "an image of fat, its water signal suppressed"
PARAMETRIC_MAP = "a parametric map"
DIFFUSION = "a diffusion-weighted image or a map of diffusion"
PROJECTION = "a projection, not an original acquisition"
REFORMAT = "not an original acquisition"

# By defined term of ImageType and of the elements in ``Content``; "_" stands for a space.
_READABLE = {
    "magnitude": "M MAG MAGNITUDE",  # PS3.3 C.8.13.3; Siemens, value 3; Philips, value 4
    "water": "W WATER WATER_ONLY DIXW",  # PS3.3 C.8.13.1, Image Type; Philips: W\W
    "in phase": "IP IN IN_PHASE INPHASE",  # Siemens: pet-rd-tools issue 11; Philips: IP\IP
}
_REFUSED = {
    # Siemens and Philips P, R and I: dcm2niix issues 194 and 345; Philips CR: corrected real.
    "a phase image": "P PHASE PHASE_MAP PHASEDIFF",
    # The pixels of real images, PSIR among them, are signed: dark need not mean little signal.
    "a real image": "R REAL CR PSIR",
    "an imaginary image": "I IMAG IMAGINARY",
    # PS3.3 C.8.13.1, Image Type; Philips: dcm2niix issue 1022; Siemens: pet-rd-tools issue 11.
    FAT: "F FAT FAT_ONLY DIXF",
    "a Dixon opposed-phase image": "OP OPP OUT OPP_PHASE OUT_PHASE OUT_OF_PHASE OUTPHASE "
    "OPPOSED_PHASE OPP_PHASED OUT_PHASED",
    "a fat-fraction map": "FF PDFF FSF FAT_FRACTION FAT_FRAC FATFRACTION",
    "a water-fraction map": "WATER_FRACTION WATER_FRAC",
    # PS3.3 C.8.13.1: FIELD_MAP; Philips writes "B0 MAP\B0" and "M_B1\M\B1".
    "a field map": "B0 B1 B0_MAP B1_MAP FIELD_MAP FIELDMAP",
    # Philips "T2 MAP\T2", Siemens "T1 MAP" (dcm2niix issue 675), GE "QMAP\T2", PS3.3 T2_STAR_MAP.
    # T1 and T2 alone are a weighting (PS3.3 C.8.13.1).
    "a T1 map": "T1_MAP T1MAP R1 R1_MAP",
    "a T2 or T2* map": "T2_MAP T2MAP R2 R2_MAP T2_STAR_MAP R2_STAR R2_STAR_MAP R2STAR",
    PARAMETRIC_MAP: "QMAP MULTI_QMAP K2 T0 RHO SCM TCS METABOLITE_MAP ENERGY_PROP_WT QUANTITY",
    # Siemens "DIFFUSION\ADC", "DIFFUSION\TRACEW": mrQA issue 49; Philips "ADC\ADC", "EADC_SE".
    DIFFUSION: "DIFFUSION DWI ADC EADC EXP FA TRACE TRACEW ISODWI DIFFUSION_ANISO "
    "DIFFUSION_ATTNTD DIFFUSION_ISO ATTNTD TENSOR TENSOR_B0 CALC_BVALUE",
    # Siemens "ASL", "PERFUSION\TTP": mrQA issue 49; PS3.3 C.8.13.1: RCBF, NEI.
    "a perfusion image or map": "PERFUSION PERFUSION_ASL ASL CBF RCBF RELCBF CBV RCBV RELCBV MTT "
    "RELMTT TTP TMAX NEI PBP "
    # Philips T1 perfusion: dcm2niix issue 255.
    "MAXENH RELENH MAXRELENH BREVENH WASHIN WASHOUT AREACURV",
    "an image of flow": "V VELOCITY VELOCITY_MAP FLOW_ENCODED PCA M_PCA TOF ANGIO ANGIO_TIME",
    "a susceptibility image": "SWI QSM SW_M SW_P SW_M_FFE SW_P_FFE SUSCEPTIBILITY",
    "a temperature map": "TEMPERATURE TEMPERATURE_MAP",
    "a tagged image": "TAGGING",
    # PS3.3 C.8.13.1; Siemens SUB (mrQA issue 49), GE SUBTRACT, Philips "MODULUS SUBTRACT".
    "a subtraction of images": "SUB SUBTRACT SUBTRACTED SUBTRACTION MODULUS_SUBTRACT "
    "PHASE_SUBTRACT",
    # PS3.3 C.8.13.1. Sums and means (ADDITION, MEAN, MSUM) keep the contrast, and are read.
    "calculated from several images": "UNI DIVISION MULTIPLICATION MASKED MAXIMUM MINIMUM "
    "STD_DEVIATION STDDEV_SAG STDDEV_COR STDDEV_TRA T_TEST TTEST Z_SCORE R_COEFFICIENT",
    # GE MAGiC and SyMRI: a contrast computed from T1 and T2 maps, "T2\SYNTHETIC".
    "a synthetic contrast": "SYNTHETIC SYNMR SYNTHESIZED SYMRI GENERATED",
    # PS3.3 C.8.16.2: MAX_IP; Siemens MIP_SAG, MNIP and "CSA MIP", GE "PJN\MIP".
    PROJECTION: "MAX_IP MIN_IP MIP MIP_SAG MIP_COR MIP_TRA MINIP MNIP MAXIP THIN_MIP CSA_MIP "
    "CSA_MIP_THIN PJN PROJECTION COLLAPSE VOLUME_RENDER SURFACE_RENDER",
    REFORMAT: "MPR CURVED_MPR CSA_MPR CSA_MPR_THICK CPR CPR_STAR REFORMATTED RESAMPLED "
    "CSA_RESAMPLED SCREENSHOT SCREEN_SAVE",
}
# DerivationCodeSequence (0008,9215), codes of DCM: PS3.16 CID 7203.
_REFUSED_DERIVATIONS = {
    "a subtraction of images": "113062",
    "calculated from several images": "113046 113047 113048 113051 113053 113097",
    PARAMETRIC_MAP: "113050 113076",
    DIFFUSION: "129105 129106",
    "a perfusion image or map": "129104",
    PROJECTION: "113074 113075 113078 113079",
    REFORMAT: "113072 113073 113085 113091",
}
# The units of RealWorldValueMappingSequence (0040,9096), UCUM: signal has none ("1").
_REFUSED_UNITS = {
    PARAMETRIC_MAP: "% ms s Hz /s 1/s s-1 rad deg T uT [ppm] ppm",
    DIFFUSION: "mm2/s um2/s s/mm2",
    "an image of flow": "cm/s mm/s m/s",
    "a temperature map": "Cel K",
}
# Of Siemens and Philips; they mean this only in the third and fourth value of ImageType.
_LETTERS = {"M", "P", "R", "I", "V"}
_MADE = {"DIXF", "DIXW", "GENERATED", "QMAP"}
_TELLING = {"MIP", "MINIP", "MNIP", "MPR", "SYNTHETIC", "PROJECTION"}  # as a part of a value
_LONG = 6  # characters from which a value that begins with a term means it: FAT_FRACTION_IDEAL
# The third value of Philips: kind and technique, cut at 16 characters. M_SE, T2_STAR_UNSPECIF.
_TECHNIQUE = re.compile(r"(.+)_(SE|TSE|GRASE|IR|FFE|TFE|EPI|PCA|B1|UNSP\w*)")


def objection(header: SliceHeader) -> str | None:
    """Why the pixels are not the signal of tissue as acquired; None if nothing says so."""
    content = header.content
    stated = {
        _REASONS_BY_TERM.get(term) for term in _terms(header.image_type, _made(header), content)
    }
    stated |= {_REASONS_BY_CODE.get(code) for code in content.derivations}
    stated.add(_REASONS_BY_UNIT.get(content.units))
    if content.b_value:
        stated.add(DIFFUSION)
    if "WS" in header.scan_options:
        stated.add(WATER_SUPPRESSED)
    # The most telling one first: a T2 map that was reformatted is foremost a T2 map.
    for reason in REASONS:
        if reason in stated:
            return reason
    kinds = kinds_of(header)
    if content.component == "MIXED" and not kinds:
        return UNSTATED_COMPONENT
    if "DIXON" in header.image_type and not kinds & {"water", "in phase"}:
        return UNSTATED_DIXON
    return None


def kinds_of(header: SliceHeader) -> frozenset[str]:
    """Those of ``magnitude``, ``water`` and ``in phase`` that the header states."""
    terms = _terms(header.image_type, _made(header), header.content)
    return frozenset(_KINDS_BY_TERM[term] for term in terms if term in _KINDS_BY_TERM)


@lru_cache(maxsize=256)
def _terms(image_type: tuple[str, ...], made: tuple[str, ...], content: Content) -> frozenset[str]:
    """What the header says of the pixels, in the terms of the tables above.

    ``made``: the values of ScanningSequence and ScanOptions that say what an image is.
    """
    terms = {content.component, content.contrast, content.calculation, *made}
    for position, value in enumerate(image_type[2:], 3):
        term = re.sub(r"[ -]+", "_", value.replace("*", "_STAR"))
        if term not in _LETTERS or position <= 4:
            terms.update(_forms(term))
    return frozenset(terms)


def _made(header: SliceHeader) -> tuple[str, ...]:
    """Of ScanOptions, whether a Dixon image shows water or fat; of ScanningSequence, if synthetic.

    Both are values of clinical files, of no standard.
    """
    words = (*header.scanning_sequence, *header.scan_options)
    synthetic = ("SYNTHETIC" for word in header.scanning_sequence if "SYNTHETIC" in word)
    return (*(word for word in words if word in _MADE), *synthetic)


def _forms(term: str) -> Iterator[str]:
    """A value of ImageType, and the terms that it contains."""
    yield term
    if philips := _TECHNIQUE.fullmatch(term):
        kind, technique = philips.groups()
        if technique == "B1":
            yield "B1"
        elif kind in ("T1", "T2", "T2_STAR"):  # a weighting, unless calculated
            yield f"{kind}_MAP" if technique.startswith("UNSP") else kind
        else:
            yield kind
    if "MAP" in (term[-3:], term.split("_")[0]) and term not in _REASONS_BY_TERM:
        yield "QMAP"
    yield from _TELLING.intersection(term.split("_"))
    longer = (known for known in (*_REASONS_BY_TERM, *_KINDS_BY_TERM) if len(known) >= _LONG)
    yield from (known for known in longer if term.startswith(f"{known}_"))


def _inverted(table: Mapping[str, str]) -> dict[str, str]:
    return {term: meaning for meaning, terms in table.items() for term in terms.split()}


_KINDS_BY_TERM = _inverted(_READABLE)
_REASONS_BY_TERM = _inverted(_REFUSED)
_REASONS_BY_CODE = _inverted(_REFUSED_DERIVATIONS)
_REASONS_BY_UNIT = _inverted(_REFUSED_UNITS)
# Every reason, the most telling first.
REASONS = (*_REFUSED, WATER_SUPPRESSED, UNSTATED_COMPONENT, UNSTATED_DIXON)
