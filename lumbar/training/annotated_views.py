"""Views for the keypoint networks from real studies with annotated points.

A series has only some annotations: the canal on sagittal T2/STIR, the foramina on sagittal T1, the
recesses on axial T2. The other points are unknown (NaN) and have no weight in training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.phantoms import locator_views
from lumbar.phantoms.chain import Numbering
from lumbar.phantoms.locator_views import Views
from lumbar.phantoms.planes import Region
from lumbar.spine.anatomy import FindingKey, Level, Role, Side
from lumbar.spine.keypoint_input import DISCS, Framing, picture
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader
from lumbar.training.default_timing import with_default_times
from lumbar.training.rsna_dataset import (
    COORDINATES,
    UNREADABLE,
    Exclusion,
    rows_by_study,
    series_by_study,
)
from lumbar.training.rsna_tables import AnnotatedPoint, annotated_points, study_folders
from lumbar.training.view_files import write_file

SAGITTAL_VIEW = Framing(locator_views.SAGITTAL_SIDE, locator_views.SAGITTAL_MM, ())
AXIAL_VIEW = Framing(locator_views.AXIAL_SIDE, locator_views.AXIAL_MM, ())
# As many slices as in the phantoms' views.
SAGITTAL_SLICES, AXIAL_SLICES = 7, 4


def write_annotated_views(
    folder: Path,
    data: Path,
    stage: Callable[[str, int], Callable[[float], None]],
    exclusions: list[Exclusion] | None = None,
) -> dict[str, list[Path]]:
    """Writes one file per study and network; returns the files by network.

    Studies of which no image can be read are added to ``exclusions``.

    Raises:
        WrongSetting: the folder is not in the RSNA 2024 layout.
    """
    studies = study_folders(data)
    rows, series = rows_by_study(data / COORDINATES), series_by_study(data)
    advance = stage("Cutting annotated views", len(studies))
    files: dict[str, list[Path]] = {}
    for study in studies:
        for kind, views in annotated_views(
            study, rows.get(study.name, []), series.get(study.name, {}), exclusions
        ).items():
            file = folder / kind / f"{study.name}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, views)
            files.setdefault(kind, []).append(file)
        advance(1)
    return files


def annotated_views(
    study: Path,
    rows: Sequence[dict[str, str]],
    series: Mapping[str, Role],
    exclusions: list[Exclusion] | None = None,
) -> dict[str, list[Views]]:
    """The views of one study by network; a view with an unreadable slice is omitted.

    A study of which no image can be read is added to ``exclusions``.

    ``series``: roles from the table of descriptions, for headers without TR and TE.
    """
    try:
        instances = with_default_times(find_instances(study, study)[0], series)
    except NotAnalysable as error:
        if exclusions is not None:
            exclusions.append(Exclusion(study.name, "", f"{UNREADABLE}: {error}"))
        return {}
    try:
        slices = SliceReader(instances)
        roles = assign_roles(slices.headers)
    except NotAnalysable:
        return {}
    points = annotated_points(study, instances, rows)
    views: dict[str, list[Views]] = {}
    for role, stacks in roles.stacks.items():
        kind = "axial" if role is Role.AXIAL_T2 else "sagittal"
        for stack in stacks:
            on_stack = [
                point
                for point in points
                if point.header in stack.slices and point.key.condition.role is role
            ]
            for group in _groups(on_stack, role):
                try:
                    views.setdefault(kind, []).append(_view(slices, stack.slices, group, role))
                except NotDicom:
                    continue
    return {kind: group for kind, group in views.items() if group}


def _groups(points: list[AnnotatedPoint], role: Role) -> Iterator[list[AnnotatedPoint]]:
    """The points of each view: all of a sagittal series, one level of an axial series."""
    if role is not Role.AXIAL_T2:
        yield from [points] if points else []
        return
    for level in Level:
        if group := [point for point in points if point.key.level is level]:
            yield group


def _view(
    slices: SliceReader, stack: Sequence[SliceHeader], annotated: list[AnnotatedPoint], role: Role
) -> Views:
    axial = role is Role.AXIAL_T2
    framing, count = (AXIAL_VIEW, AXIAL_SLICES) if axial else (SAGITTAL_VIEW, SAGITTAL_SLICES)
    by_key = {point.key: point.point for point in annotated}
    centre = np.mean(list(by_key.values()), axis=0)
    indices = _spread(sorted({stack.index(p.header) for p in annotated}), count, len(stack))
    first, normal = stack[indices[0]], stack[indices[0]].normal
    if float((stack[indices[-1]].centre - first.centre) @ normal) < 0:
        normal = -normal
    pictures = [picture(slices.read(stack[i]), stack[i], centre, framing) for i in indices]
    points = np.full(
        (1 + len(Side) if axial else len(DISCS) + len(Side) * len(Level), 3), np.nan, np.float32
    )
    for key, point in by_key.items():
        points[_index(key)] = *pictures[0].to_pixel(point), (point - first.centre) @ normal
    return Views(
        np.stack([(255 * p.pixels).round().astype(np.uint8) for p in pictures]),
        np.array([(stack[i].centre - first.centre) @ normal for i in indices], np.float32),
        points,
        Numbering.USUAL,
        Region.LUMBAR,
    )


def _spread(annotated: list[int], count: int, available: int) -> list[int]:
    """Indices of ``count`` slices, evenly from before the first annotated one to after the last.

    Indices repeat if there are too few slices.
    """
    low, high = max(annotated[0] - 1, 0), min(annotated[-1] + 1, available - 1)
    more = max(0, count - 1 - (high - low))
    low, high = max(low - more // 2, 0), min(high + (more + 1) // 2, available - 1)
    return [round(index) for index in np.linspace(low, high, count).tolist()]


def _index(key: FindingKey) -> int:
    """A finding's index among the points of the phantoms' views of its plane."""
    side = 0 if key.condition.side is None else list(Side).index(key.condition.side)
    if key.condition.role is Role.AXIAL_T2:
        return 1 + side
    if key.condition.role is Role.SAGITTAL_T1:
        return len(DISCS) + len(Level) * side + list(Level).index(key.level)
    return DISCS.index(key.level)
