"""Contrast where the headers do not tell it: files made anonymous often lack the times that make it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lumbar.dicom.discover import MRInstance
from lumbar.spine.anatomy import Role

# Usual repetition and echo times, ms.
TIMES: Mapping[Role, tuple[float, float]] = {
    Role.SAGITTAL_T1: (500.0, 10.0),
    Role.SAGITTAL_T2: (3500.0, 100.0),
    Role.AXIAL_T2: (3500.0, 100.0),
}


def with_times(instances: Sequence[MRInstance], series: Mapping[str, Role]) -> list[MRInstance]:
    """A study's instances; slices that tell neither repetition nor echo time get those of what their series is
    described as.

    ``series``: by the name of its folder, as ``train_series_descriptions.csv`` has it.
    """
    return [_timed(found, series.get(found.path.parent.name)) for found in instances]


def _timed(found: MRInstance, role: Role | None) -> MRInstance:
    if role is None or any(
        s.repetition_time is not None or s.echo_time is not None for s in found.slices
    ):
        return found
    repetition, echo = TIMES[role]
    slices = tuple(replace(s, repetition_time=repetition, echo_time=echo) for s in found.slices)
    return MRInstance(found.path, found.header, slices)
