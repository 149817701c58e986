"""Series as a scanner makes them; their slices form a lumbar study."""

import math
from dataclasses import replace

import numpy as np

from lumbar.spine.anatomy import Role
from lumbar.spine.roles import Roles
from lumbar.spine.slices import SliceHeader
from tests.factories.headers import SLICE as HEADER
from tests.study_factory import series

SLICE = replace(HEADER, rows=384, columns=384, spacing=(0.75, 0.75))
T1 = {"repetition_time": 500.0, "echo_time": 12.0}
T2: dict[str, float] = {}
STIR = {"inversion_time": 160.0, "echo_time": 50.0}


def sagittal(series: int, count: int = 15, **values: object) -> list[SliceHeader]:
    """From the patient's right to the left."""
    return [
        replace(
            SLICE,
            series_instance_uid=f"1.2.{series}",
            sop_instance_uid=f"1.2.{series}.{n}",
            instance_number=n,
            position=(-30.0 + 4.4 * n, -140.0, 140.0),
            **values,  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


def axial(
    series: int, count: int = 30, tilt: float = 0.0, z: float = -80.0, **values: object
) -> list[SliceHeader]:
    """From caudal to cranial, tilted about the left-right axis by degrees."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return [
        replace(
            SLICE,
            **{
                "series_instance_uid": f"1.2.{series}",
                "sop_instance_uid": f"1.2.{series}.{tilt}.{n}",
                "instance_number": n,
                "orientation": (1.0, 0.0, 0.0, 0.0, cos, -sin),
                "position": (-100.0, -100.0, z + 4.4 * n),
                "spacing": (0.5, 0.5),
                **values,
            },  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


LOCALIZER = [
    replace(
        s,
        scanning_sequence=("GR",),
        repetition_time=8.0,
        echo_time=4.0,
        sop_instance_uid=f"{s.sop_instance_uid}.9",
    )
    for s in (*sagittal(1, 3), *axial(1, 3))
]
STUDY = [*LOCALIZER, *sagittal(2, **T1), *sagittal(3, **T2), *axial(10, **T2)]
MANY = [
    *STUDY,
    *axial(11, 6, tilt=15, z=0),
    *axial(11, 6, tilt=25, z=-60),
    *sagittal(12, **STIR),
    *sagittal(13, image_type=("ORIGINAL", "PRIMARY", "M", "FAT")),
]
EVEN, ODD = slice(0, None, 2), slice(1, None, 2)
LOWER, UPPER = slice(0, 7), slice(7, None)


def series_of(slices: tuple[SliceHeader, ...]) -> set[str]:
    return {s.series_instance_uid for s in slices}


def anew(slices: list[SliceHeader], uid: int, **values: object) -> list[SliceHeader]:
    """As another series."""
    return [
        replace(s, series_instance_uid=f"1.2.{uid}", sop_instance_uid=f"1.2.{uid}.{n}", **values)  # type: ignore[arg-type]
        for n, s in enumerate(slices)
    ]


def moved(
    slices: list[SliceHeader], x: float = 0.0, y: float = 0.0, z: float = 0.0
) -> list[SliceHeader]:
    return [
        replace(s, position=(s.position[0] + x, s.position[1] + y, s.position[2] + z))
        for s in slices
    ]


def places(roles: Roles) -> dict[Role, list[list[tuple[float, ...]]]]:
    """The centres of the slices of each role's stacks, in order."""
    return {
        role: [
            [tuple(float(v) + 0.0 for v in np.round(s.centre, 1)) for s in stack.slices]
            for stack in stacks
        ]
        for role, stacks in roles.stacks.items()
    }


def assert_each_series_is_named_once(roles: Roles, slices: list[SliceHeader]) -> None:
    assert len(roles.choices) == len(series(slices))
    for number, choice in enumerate(roles.choices, 1):
        assert choice.startswith(f"series {number} (")
        assert choice.count("): ") >= 1
