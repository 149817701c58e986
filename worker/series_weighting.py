"""The weighting of series whose header shows none: by their contrast, then by their description."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.slice_reader import SliceReader
from lumbar.elements import text
from lumbar.spine.anatomy import Plane
from lumbar.spine.contrast import weighting_of_description, weighting_of_images
from lumbar.spine.image_content import objection
from lumbar.spine.keypoint_input import KeypointDetector
from lumbar.spine.slices import SliceHeader
from lumbar.spine.weighting import Weighting, only_contrast_tells


def with_weighting(
    slices: SliceReader, instances: Sequence[MRInstance], keypoints: KeypointDetector
) -> tuple[SliceHeader, ...]:
    """All slice headers, with ``weighting_by`` where the times show no weighting.

    Each series is decided as a whole, separately in each plane; of the others no slice is read.
    """
    descriptions = {str(i.path): text(i.header, "SeriesDescription") for i in instances}
    unknown: defaultdict[tuple[str, Plane], list[SliceHeader]] = defaultdict(list)
    for header in slices.headers:
        if header.plane is not Plane.CORONAL and _is_open(header):
            unknown[header.series_instance_uid, header.plane].append(header)
    shown: dict[tuple[str, int | None], tuple[Weighting, str] | None] = {}
    for members in unknown.values():
        found = _shown(members, slices, descriptions, keypoints)
        shown |= {(header.file, header.frame): found for header in members}
    return tuple(
        replace(header, weighting_by=shown.get((header.file, header.frame)))
        for header in slices.headers
    )


def _is_open(header: SliceHeader) -> bool:
    return only_contrast_tells(header) and objection(header) is None


def _shown(
    series: Sequence[SliceHeader],
    slices: SliceReader,
    descriptions: Mapping[str, str],
    keypoints: KeypointDetector,
) -> tuple[Weighting, str] | None:
    if (seen := weighting_of_images(series, slices.read, keypoints)) is not None:
        return seen, "contrast"
    if (named := weighting_of_description(descriptions[series[0].file])) is not None:
        return named, "description"
    return None
