"""The picture for checking an analysis by eye: the levels and every finding's crop."""

from collections.abc import Sequence

import numpy as np

from lumbar.dicom.discover import MRInstance
from lumbar.dicom.slice_reader import SliceReader
from lumbar.reports.picture import AnnotatedSlice, Cell, draw
from lumbar.spine.findings import Finding
from lumbar.spine.roles import series_numbers
from worker.pipeline import Analysis
from worker.views import View


def picture_of(
    analysis: Analysis, instances: Sequence[MRInstance], notices: Sequence[str]
) -> bytes:
    """The analysis on one page. ``notices`` are printed on it."""
    slices = SliceReader(instances)
    series = series_numbers(slices.headers)
    views = {view.candidate.key: view for view in analysis.views}
    cells = [_cell(finding, views.get(finding.key), series) for finding in analysis.findings]
    lines = (
        *(f"Caution: {caveat}" for caveat in analysis.caveats),
        *map(str, analysis.readings),
        *analysis.choices,
    )
    return draw(_annotated_slice(analysis, slices), cells, lines, notices)


def _cell(finding: Finding, view: View | None, series: dict[str, int]) -> Cell:
    if view is None:
        return Cell(finding, None, "")
    header = view.candidate.header
    source = f"series {series[header.series_instance_uid]}, image {header.instance_number}"
    return Cell(finding, view.crop, source)


def _annotated_slice(analysis: Analysis, slices: SliceReader) -> AnnotatedSlice | None:
    """The slice that shows the levels, or the axial one whose level is not known."""
    if analysis.levels is not None:
        header, canal = analysis.levels.source, analysis.levels.canal
        marks = {level.label: point for level, point in canal.items()}
        return AnnotatedSlice("Disc levels as they were named", slices.read(header), header, marks)
    if not analysis.readings:
        return None
    header = analysis.readings[0].header
    marks = {
        str(r.condition.side).capitalize(): np.array([r.point.x, r.point.y, r.point.z])
        for r in analysis.readings
    }
    return AnnotatedSlice("A slice whose level is not known", slices.read(header), header, marks)
