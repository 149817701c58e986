"""The elements that state what an image's pixels mean, and with what contrast they were made."""

import re
from collections.abc import Iterator, Sequence

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from lumbar.elements import items, words
from lumbar.spine.slices import Content

# GE (0043,xx2F), its "image type" of the raw data: GE's conformance statements; dcm2niix pull 826.
GE_CREATOR = "GEMS_PARM_01"
GE_COMPONENTS = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")
# The words for "no contrast agent" that technicians and scanners write into ContrastBolusAgent.
NO_AGENT = re.compile(
    r"(0[0 ]*( ?ml| ?cc)?|n|na|nc|n a|nan|nil|null|unknown|undefined"
    r"|unenhanced|uncontrasted|false|plain|native?|nein"
    r"|(none|no|not|without|w o|wo|kein|keine|ohne|sans|sin|aucun|ninguno)( .*)?"
    r"|(non ?|pre ?)(contrast|enhanced).*)?"
)
# Codes for "none": SNOMED CT and SNOMED RT (PS3.16 CID 243 and others).
NO_AGENT_CODES = {"260413007", "R-40775"}
# The elements of a frame's functional groups that are read for this module's functions.
READ_PER_FRAME = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        *("FrameType", "ImageType", "ComplexImageComponent", "AcquisitionContrast"),
        *("VolumeBasedCalculationTechnique", "DerivationCodeSequence"),
        *("MeasurementUnitsCodeSequence", "ContrastBolusAgentAdministered"),
        *("DiffusionBValue", "EchoNumbers", "TemporalPositionIndex"),
        *("ContrastBolusAgent", "ContrastBolusAgentSequence"),
    )
)


def stating_content(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Those of a frame's data sets that hold elements read here; the root always.

    The other functions take these. A file may have thousands of frames of some 20 data sets each.
    """
    *groups, root = datasets
    return [*(group for group in groups if not READ_PER_FRAME.isdisjoint(group.keys())), root]


def content(datasets: Sequence[Dataset], b_value: float | None) -> Content:
    """What a frame's elements, besides ImageType, state about its pixels."""
    return Content(
        component=_word(datasets, "ComplexImageComponent") or _ge_component(datasets[-1]),
        contrast=_word(datasets, "AcquisitionContrast"),
        calculation=_word(datasets, "VolumeBasedCalculationTechnique").removeprefix("NONE"),
        derivations=tuple(_codes(datasets, "DerivationCodeSequence")),
        units=next(_units(datasets), ""),
        b_value=b_value,
    )


def image_type(datasets: Sequence[Dataset], private: Sequence[Dataset]) -> tuple[str, ...]:
    """FrameType or ImageType.

    Philips names the kind of a frame in the ImageType of a private item alone, (2005,140F); its
    values are put before those of FrameType (dcm2niix issues 345 and 1022). ``private``: the items
    of a frame's private sequences.
    """
    stated = words(datasets, "FrameType", "ImageType")
    named = words(private, "ImageType")
    return (*stated[:2], *named[2:], *stated[2:]) if named and named != stated else stated


def has_contrast_agent(datasets: Sequence[Dataset]) -> bool:
    """Whether a contrast agent was given, as far as the header states it.

    For Enhanced MR, ContrastBolusAgentAdministered of the frame decides (PS3.3 C.7.6.16.2.12).
    """
    if administered := _word(datasets, "ContrastBolusAgentAdministered"):
        return administered != "NO"
    agents = [" ".join(words([dataset], "ContrastBolusAgent")) for dataset in datasets]
    for item in (i for d in datasets for i in items(d, "ContrastBolusAgentSequence")):
        code, meaning = (str(item.get(k) or "").strip() for k in ("CodeValue", "CodeMeaning"))
        agents.append("none" if code in NO_AGENT_CODES else meaning or code or "unnamed")
    return any(not _means_none(agent) for agent in agents)


def _means_none(agent: str) -> bool:
    plain = re.sub(r"[\W_]+", " ", agent.casefold()).strip()
    return NO_AGENT.fullmatch(plain) is not None


def _word(datasets: Sequence[Dataset], keyword: str) -> str:
    return next(iter(words(datasets, keyword)), "")


def _ge_component(root: Dataset) -> str:
    try:
        value = root.private_block(0x0043, GE_CREATOR)[0x2F].value
    except KeyError:
        return ""
    if isinstance(value, bytes):  # its VR was not known
        value = int.from_bytes(value[:2], "little", signed=True)
    return GE_COMPONENTS[value] if value in range(len(GE_COMPONENTS)) else ""


def _codes(datasets: Sequence[Dataset], keyword: str) -> Iterator[str]:
    """The code values of a sequence of codes."""
    for dataset in datasets:
        for item in items(dataset, keyword):
            yield str(item.get("CodeValue") or "").strip()


def _units(datasets: Sequence[Dataset]) -> Iterator[str]:
    """The units into which pixels are mapped (PS3.3 C.7.6.16.2.11)."""
    mappings = items(datasets[-1], "RealWorldValueMappingSequence")
    yield from _codes([*datasets, *mappings], "MeasurementUnitsCodeSequence")
