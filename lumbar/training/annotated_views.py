"""Views for the keypoint networks from real studies with labelled points, beside the drawn ones.

On a series only some points are marked: the canal on sagittal T2/STIR, the foramina on sagittal T1, the recesses on
axial T2. The others stay unknown (NaN), and nothing is learnt of them there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lumbar.dicom.discover import find_instances
from lumbar.dicom.slice_reader import SliceReader
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.phantoms import locator_views as drawn
from lumbar.phantoms.chain import Numbering
from lumbar.phantoms.locator_views import Views
from lumbar.phantoms.planes import Region
from lumbar.spine.anatomy import FindingKey, Level, Role, Side
from lumbar.spine.keypoint_input import DISCS, Framing, picture
from lumbar.spine.roles import assign_roles
from lumbar.spine.slices import SliceHeader
from lumbar.training.default_timing import with_times
from lumbar.training.rsna_dataset import COORDINATES, rows_by_study, series_by_study
from lumbar.training.rsna_tables import Label, labels_of, study_folders
from lumbar.training.view_files import write_file

SAGITTAL_VIEW = Framing(drawn.SAGITTAL_SIDE, drawn.SAGITTAL_MM, ())
AXIAL_VIEW = Framing(drawn.AXIAL_SIDE, drawn.AXIAL_MM, ())
SAGITTAL_SLICES, AXIAL_SLICES = 7, 4  # as many as in the drawn views


def write_labelled_views(
    folder: Path, data: Path, stage: Callable[[str, int], Callable[[float], None]]
) -> dict[str, list[Path]]:
    """Writes a file a study and network, and gives them by network.

    Raises WrongSetting where it is no data set in the RSNA 2024 layout.
    """
    studies, rows, series = (
        study_folders(data),
        rows_by_study(data / COORDINATES),
        series_by_study(data),
    )
    advance = stage("Cutting labelled views", len(studies))
    files: dict[str, list[Path]] = {}
    for study in studies:
        for kind, views in labelled_views(
            study, rows.get(study.name, []), series.get(study.name, {})
        ).items():
            file = folder / kind / f"{study.name}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, views)
            files.setdefault(kind, []).append(file)
        advance(1)
    return files


def labelled_views(
    study: Path, rows: Sequence[dict[str, str]], series: Mapping[str, Role]
) -> dict[str, list[Views]]:
    """The views of one study by network; a slice that cannot be read leaves out only its view.

    ``series``: what the tables describe each as, for those whose headers tell no times.
    """
    try:
        instances = with_times(find_instances(study, study)[0], series)
        slices = SliceReader(instances)
        roles = assign_roles(slices.headers)
    except NotAnalysable:
        return {}
    labels = labels_of(study, instances, rows)
    views: dict[str, list[Views]] = {}
    for role, stacks in roles.stacks.items():
        kind = "axial" if role is Role.AXIAL_T2 else "sagittal"
        for stack in stacks:
            own = [
                label
                for label in labels
                if label.header in stack.slices and label.key.condition.role is role
            ]
            for marked in _together(own, role):
                try:
                    views.setdefault(kind, []).append(_view(slices, stack.slices, marked, role))
                except NotDicom:
                    continue
    return {kind: own for kind, own in views.items() if own}


def _together(labels: list[Label], role: Role) -> Iterator[list[Label]]:
    """What one view shows: all of a sagittal series, one level of an axial one."""
    if role is not Role.AXIAL_T2:
        yield from [labels] if labels else []
        return
    for level in Level:
        if own := [label for label in labels if label.key.level is level]:
            yield own


def _view(
    slices: SliceReader, stack: Sequence[SliceHeader], labels: list[Label], role: Role
) -> Views:
    axial = role is Role.AXIAL_T2
    framing, count = (AXIAL_VIEW, AXIAL_SLICES) if axial else (SAGITTAL_VIEW, SAGITTAL_SLICES)
    marked = {label.key: label.point for label in labels}
    centre = np.mean(list(marked.values()), axis=0)
    shown = _spread(sorted({stack.index(label.header) for label in labels}), count, len(stack))
    first, normal = stack[shown[0]], stack[shown[0]].normal
    if float((stack[shown[-1]].centre - first.centre) @ normal) < 0:
        normal = -normal
    pictures = [picture(slices.read(stack[i]), stack[i], centre, framing) for i in shown]
    points = np.full(
        (1 + len(Side) if axial else len(DISCS) + len(Side) * len(Level), 3), np.nan, np.float32
    )
    for key, point in marked.items():
        points[_index(key)] = *pictures[0].to_pixel(point), (point - first.centre) @ normal
    return Views(
        np.stack([(255 * p.pixels).round().astype(np.uint8) for p in pictures]),
        np.array([(stack[i].centre - first.centre) @ normal for i in shown], np.float32),
        points,
        Numbering.USUAL,
        Region.LUMBAR,
    )


def _spread(marked: list[int], count: int, available: int) -> list[int]:
    """So many slices, evenly from beside the first marked one to beside the last; some twice where there are few."""
    low, high = max(marked[0] - 1, 0), min(marked[-1] + 1, available - 1)
    more = max(0, count - 1 - (high - low))
    low, high = max(low - more // 2, 0), min(high + (more + 1) // 2, available - 1)
    return [round(place) for place in np.linspace(low, high, count).tolist()]


def _index(key: FindingKey) -> int:
    """A finding's place among the points of the drawn views of its plane."""
    side = 0 if key.condition.side is None else list(Side).index(key.condition.side)
    if key.condition.role is Role.AXIAL_T2:
        return 1 + side
    if key.condition.role is Role.SAGITTAL_T1:
        return len(DISCS) + len(Level) * side + list(Level).index(key.level)
    return DISCS.index(key.level)
