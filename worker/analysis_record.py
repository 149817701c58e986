"""An analysis as one JSON object, for programs: series, levels, findings, and why not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lumbar.dicom.discover import MRInstance
from lumbar.reports.finding_records import StudyFinding, StudyReference, finding_record
from lumbar.spine.anatomy import Severity
from lumbar.spine.provenance import BundleIdentity
from lumbar.spine.roles import Roles, series_numbers
from lumbar.spine.slices import SliceHeader
from worker.loose_slice import Reading
from worker.pipeline import Analysis


def analysis_record(
    analysis: Analysis,
    instances: Sequence[MRInstance],
    bundle: BundleIdentity,
    skipped: Sequence[str] = (),
) -> dict[str, Any]:
    """The object that docs/operations.md describes; ``skipped``: notes on files that were not used.

    Points are in pixels (0-based, integers at pixel centres) and in mm (LPS).
    """
    study, caveats = StudyReference(analysis.study_instance_uid), analysis.caveats
    headers = [header for instance in instances for header in instance.slices]
    return {
        "study_instance_uid": analysis.study_instance_uid,
        "refusal": analysis.refusal,
        "series": _series(analysis.roles, headers),
        "levels": _levels(analysis),
        "caveats": list(caveats),
        "notes": [*analysis.choices[len(analysis.roles.choices) :], *skipped],
        "readings": [_reading(reading) for reading in analysis.readings],
        "findings": [
            finding_record(StudyFinding(study, finding, bundle, caveats))
            for finding in analysis.findings
        ],
    }


def _series(roles: Roles, headers: Sequence[SliceHeader]) -> list[dict[str, Any]]:
    role_of = {
        header.series_instance_uid: role
        for role, stacks in roles.stacks.items()
        for stack in stacks
        for header in stack.slices
    }
    slices = Counter(header.series_instance_uid for header in set(headers))
    numbered = zip(series_numbers(headers).items(), roles.choices, strict=True)
    return [
        {
            "number": number,
            "series_instance_uid": uid,
            "slices": slices[uid],
            "role": role_of.get(uid),
            "reason": choice.removeprefix(f"series {number} "),
        }
        for (uid, number), choice in numbered
    ]


def _levels(analysis: Analysis) -> list[dict[str, Any]]:
    levels = analysis.levels
    if levels is None:
        return []
    rows = []
    for level, point in levels.canal.items():
        column, row = levels.source.to_pixel(point)
        x, y, z = point.tolist()
        rows.append(
            {
                "level": level,
                **_image(levels.source),
                **_rounded({"column": column, "row": row, "x": x, "y": y, "z": z}, 2),
                **_rounded({"presence": levels.presence[level]}, 4),
                "caveats": list(analysis.caveats),
            }
        )
    return rows


def _reading(reading: Reading) -> dict[str, Any]:
    """A reading of an axial slice whose level is not known."""
    point = reading.point
    probabilities = {
        str(severity): p for severity, p in zip(Severity, reading.probabilities, strict=True)
    }
    place = {name: getattr(point, name) for name in ("column", "row", "x", "y", "z")}
    return {
        "condition": reading.condition,
        **_rounded({**probabilities, "shows": reading.shows}, 6),
        **_image(reading.header),
        **_rounded(place, 2),
    }


def _image(header: SliceHeader) -> dict[str, Any]:
    return {
        "series_instance_uid": header.series_instance_uid,
        "sop_instance_uid": header.sop_instance_uid,
        "instance_number": header.instance_number,
        "frame": header.frame,
    }


def _rounded(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
