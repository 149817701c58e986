"""Where a frame's attributes are: in the functional groups of a multi-frame image, or in its root.

Only the macros of the standard are looked into. Scanners add private sequences to the groups whose
items have the same attributes with other meanings, for example (2005,140F) (Philips); of these only
``private_items`` knows.
"""

from pydicom.dataset import Dataset

from lumbar.errors import NotDicom

MAX_FRAMES = 10_000

# PS3.3 C.7.6.16.2 and C.8.13.5: the macros whose attributes are read.
MACROS = (
    "FrameContentSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "MRImageFrameTypeSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRFOVGeometrySequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRImagingModifierSequence",
    "MRDiffusionSequence",
    "ContrastBolusUsageSequence",
    "DerivationImageSequence",
    "RealWorldValueMappingSequence",
)
# PS3.3 C.7.6.16.2.25 and .26: what the single-frame images had and no macro has.
CONVERTED = (
    "UnassignedPerFrameConvertedAttributesSequence",
    "UnassignedSharedConvertedAttributesSequence",
)


def frame_count(ds: Dataset) -> int:
    """NumberOfFrames; 1 if absent, empty or zero.

    Raises:
        NotDicom: it is outside 1 to ``MAX_FRAMES``.
    """
    frames = ds.get("NumberOfFrames") or 1
    if not 1 <= int(frames) <= MAX_FRAMES:
        raise NotDicom(f"NumberOfFrames is not within 1 to {MAX_FRAMES}")
    return int(frames)


def frame_datasets(ds: Dataset, frame: int | None) -> list[Dataset]:
    """The data sets that hold a frame's attributes, in order of precedence.

    These are the macros of its per-frame functional groups, those of the shared ones, the
    attributes that a conversion to multi-frame kept, and the root. ``frame`` is 1-based; None in a
    single-frame instance, which has only its root.
    """
    if frame is None:
        return [ds]
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    groups = ds.PerFrameFunctionalGroupsSequence[frame - 1], shared[0]
    found = [
        group.get(keyword) for kind in (MACROS, CONVERTED) for group in groups for keyword in kind
    ]
    return [*(sequence[0] for sequence in found if sequence), ds]


def private_items(ds: Dataset, frame: int | None) -> list[Dataset]:
    """The first item of each private sequence among a frame's functional groups, and the shared."""
    if frame is None:
        return []
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    groups = ds.PerFrameFunctionalGroupsSequence[frame - 1], shared[0]
    private = (element for group in groups for element in group if element.tag.is_private)
    return [element.value[0] for element in private if element.VR == "SQ" and element.value]
