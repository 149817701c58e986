"""Default TR and TE for series whose headers lack them; de-identification often removes them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lumbar.dicom.discover import MRInstance
from lumbar.spine.anatomy import Role

# Typical repetition and echo times, ms.
TIMES: Mapping[Role, tuple[float, float]] = {
    Role.SAGITTAL_T1: (500.0, 10.0),
    Role.SAGITTAL_T2: (3500.0, 100.0),
    Role.AXIAL_T2: (3500.0, 100.0),
}


def with_default_times(
    instances: Sequence[MRInstance], series: Mapping[str, Role]
) -> list[MRInstance]:
    """A study's instances; those with neither TR nor TE get typical times of their series' role.

    ``series``: the role by the name of the series folder, from ``train_series_descriptions.csv``.
    """
    return [_timed(instance, series.get(instance.path.parent.name)) for instance in instances]


def _timed(instance: MRInstance, role: Role | None) -> MRInstance:
    if role is None or any(
        s.repetition_time is not None or s.echo_time is not None for s in instance.slices
    ):
        return instance
    repetition, echo = TIMES[role]
    slices = tuple(replace(s, repetition_time=repetition, echo_time=echo) for s in instance.slices)
    return replace(instance, slices=slices)
