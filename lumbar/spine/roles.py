"""Which series is read for what, by geometry and timing: descriptions and body parts lie."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

import numpy as np

from lumbar.errors import NotAnalysable
from lumbar.spine.anatomy import Plane, Role
from lumbar.spine.slices import SliceHeader, Vector

ALONE = 2  # a study of so few slices is read by plane and weighting alone
MIN_SLICES = 8
FIELD_OF_VIEW = {Plane.SAGITTAL: (180.0, 400.0), Plane.AXIAL: (120.0, 400.0)}  # mm, the longer side; axial is zoomed
PARALLEL = 0.01  # greatest difference of direction cosines within a stack, about half a degree
SAME_POSITION = 0.1  # mm along the normal


class Weighting(StrEnum):
    """What makes the contrast of a slice, as far as TR, TE and TI tell."""

    T1 = "T1"
    T2 = "T2"
    STIR = "STIR"
    FLAIR = "FLAIR"
    PROTON_DENSITY = "proton density"
    GRADIENT_ECHO = "gradient echo"
    UNKNOWN = "unknown weighting"


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one series, contrast and frame of reference, no two at the same position.

    Sagittal slices run from the patient's right to the left (+x), axial ones from caudal to cranial (+z).
    """

    slices: tuple[SliceHeader, ...]
    weighting: Weighting

    @property
    def plane(self) -> Plane:
        return self.slices[0].plane

    @property
    def fat_suppressed(self) -> bool:
        first = self.slices[0]
        return self.weighting == Weighting.STIR or "FS" in first.scan_options or "WATER" in _dixon(first)

    def nearest(self, point: Vector) -> tuple[SliceHeader, float]:
        """The slice whose mid-plane is closest to a point (mm, LPS), and its unsigned distance in mm."""
        closest = min(self.slices, key=lambda s: abs(s.distance(point)))
        return closest, abs(closest.distance(point))


@dataclass(frozen=True)
class Roles:
    """The stacks to read for each role, one for a sagittal role and all there are for the axial one.

    ``choices`` tells in words what became of every series, numbered from 1 in the order of their UIDs.
    """

    stacks: Mapping[Role, tuple[Stack, ...]]
    choices: tuple[str, ...]

    @property
    def missing(self) -> tuple[Role, ...]:
        return tuple(role for role in Role if not self.stacks.get(role))


def weighting(header: SliceHeader) -> Weighting:
    """By ScanningSequence, TI, TE and TR; an inversion time of 0 is none (GE and Hitachi write it so)."""
    if {"GR", "EP", "RM"} & set(header.scanning_sequence):
        return Weighting.GRADIENT_ECHO
    repetition, echo, inversion = header.repetition_time, header.echo_time, header.inversion_time or 0.0
    if repetition is None or echo is None:
        return Weighting.UNKNOWN
    if inversion > 1300:
        return Weighting.FLAIR
    if inversion >= 300 and echo < 40:
        return Weighting.T1
    if 80 <= inversion < 300 and repetition > 1500:
        return Weighting.STIR
    if echo <= 35 and repetition <= 1200:
        return Weighting.T1
    if echo >= 60 and repetition >= 1400:
        return Weighting.T2
    return Weighting.PROTON_DENSITY if echo < 60 and repetition >= 1400 else Weighting.UNKNOWN


def role_of(header: SliceHeader) -> Role | None:
    """What a series of such slices is read for, by plane and weighting alone."""
    if header.plane is Plane.SAGITTAL:
        roles = {Weighting.T1: Role.SAGITTAL_T1, Weighting.T2: Role.SAGITTAL_T2, Weighting.STIR: Role.SAGITTAL_T2}
        return roles.get(weighting(header))
    return Role.AXIAL_T2 if header.plane is Plane.AXIAL and weighting(header) is Weighting.T2 else None


def assign_roles(slices: Sequence[SliceHeader]) -> Roles:
    """Reads the slices of one study, in any order, duplicates included.

    A study of at most ``ALONE`` slices gets its roles by plane and weighting alone; a larger one must also show whole
    series of at least ``MIN_SLICES`` slices and the spine's field of view. Raises NotAnalysable for several studies.
    """
    if len({s.study_instance_uid for s in slices}) > 1:
        raise NotAnalysable("the slices belong to several studies; analyse one at a time")
    distinct = sorted(set(slices), key=_identity)
    contrasts = _contrasts(distinct)
    reasons = [_objection(c, alone=len(distinct) <= ALONE) for c in contrasts]
    readable = [c for c, reason in zip(contrasts, reasons, strict=True) if reason is None]
    serving = {role: _serving(role, [c for c in readable if c.role == role]) for role in Role}
    stacks = {role: tuple(stack for c in serving[role] for stack in c.stacks) for role in Role if serving[role]}
    choices = []
    for contrast, reason in zip(contrasts, reasons, strict=True):
        if reason is None and contrast.role is not None:
            taken = contrast in serving[contrast.role]
            reason = contrast.role.label if taken else f"not read, another is better for {contrast.role.label}"
        choices.append(f"{contrast}: {reason}")
    return Roles(stacks, tuple(choices))


@dataclass(frozen=True)
class _Contrast:
    """What a series holds of one contrast, plane and frame of reference: a dual echo makes two of them."""

    series: int
    planes_in_series: int
    stacks: tuple[Stack, ...]

    @property
    def first(self) -> SliceHeader:
        return self.stacks[0].slices[0]

    @property
    def weighting(self) -> Weighting:
        return self.stacks[0].weighting

    @property
    def role(self) -> Role | None:
        return role_of(self.first)

    def __len__(self) -> int:
        return sum(len(stack.slices) for stack in self.stacks)

    def __str__(self) -> str:
        times = (
            ("TR", self.first.repetition_time),
            ("TE", self.first.echo_time),
            ("TI", self.first.inversion_time or None),
        )
        timing = "".join(f" {name} {ms:.0f}" for name, ms in times if ms is not None)
        slices = f"{len(self)} {self.first.plane} {'slice' if len(self) == 1 else 'slices'}"
        return f"series {self.series} ({slices}{',' if timing else ''}{timing})"


def _objection(contrast: _Contrast, alone: bool) -> str | None:
    """Why it cannot be read, or None. Asks for whole series only of what is not ``alone``."""
    first, kinds = contrast.first, contrast.first.image_type
    longer_side = max(first.rows * first.spacing[0], first.columns * first.spacing[1])
    low, high = FIELD_OF_VIEW.get(first.plane, (0.0, np.inf))
    localizer = "LOCALIZER" in kinds or contrast.planes_in_series > 1
    reformat = {"DERIVED", "SECONDARY"} & set(kinds[:2]) or {"MPR", "PROJECTION", "PROJECTION IMAGE"} & set(kinds)
    whole = [
        (localizer, "a localizer"),
        (bool(reformat), "not an original acquisition"),
        (bool(_dixon(first) & {"FAT", "OUT_PHASE"}), "a Dixon fat or opposed-phase image"),
        (contrast.role is None, f"{contrast.weighting} in this plane is not read"),
        (len(contrast) < MIN_SLICES, f"fewer than {MIN_SLICES} slices"),
        (not low <= longer_side <= high, f"the field of view is not within {low:.0f} to {high:.0f} mm"),
    ]
    if alone:
        whole = [check for check in whole if contrast.role is None and check[0]]
    return next((f"refused, {reason}" for applies, reason in whole if applies), None)


def _serving(role: Role, offered: list[_Contrast]) -> list[_Contrast]:
    """All that is axial; of a sagittal role one, without fat suppression or contrast agent, most slices, finest."""
    if role == Role.AXIAL_T2 or not offered:
        return offered
    return [
        min(
            offered,
            key=lambda c: (
                c.stacks[0].fat_suppressed,
                c.first.contrast_agent,
                -len(c),
                round(c.first.spacing[0] * c.first.spacing[1], 4),
            ),
        )
    ]


def _contrasts(slices: Sequence[SliceHeader]) -> list[_Contrast]:
    """Series in order, in each its contrasts, in each its stacks of parallel slices."""
    contrasts = []
    for ordinal, (_, group) in enumerate(groupby(slices, key=lambda s: s.series_instance_uid), 1):
        series = list(group)
        groups: defaultdict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
        for header in series:
            key = header.frame_of_reference_uid, header.plane, weighting(header), tuple(sorted(_dixon(header)))
            groups[key].append(header)
        planes = len({header.plane for header in series})
        contrasts += [_Contrast(ordinal, planes, _stacks(alike)) for alike in groups.values()]
    return contrasts


def _stacks(alike: list[SliceHeader]) -> tuple[Stack, ...]:
    """The largest first; a sagittal series is read in one piece, its largest."""
    parallel: list[list[SliceHeader]] = []
    for header in alike:
        for stack in parallel:
            if np.abs(np.subtract(stack[0].orientation, header.orientation)).max() <= PARALLEL:
                stack.append(header)
                break
        else:
            parallel.append([header])
    stacks = sorted((Stack(_ordered(p), weighting(p[0])) for p in parallel), key=lambda s: -len(s.slices))
    return tuple(stacks[:1] if stacks[0].plane == Plane.SAGITTAL else stacks)


def _ordered(stack: list[SliceHeader]) -> tuple[SliceHeader, ...]:
    axis = stack[0].normal
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    kept: list[SliceHeader] = []
    last = -np.inf
    for header in sorted(stack, key=lambda s: (round(float(np.array(s.position) @ axis), 3), _identity(s))):
        place = float(np.array(header.position) @ axis)
        if place - last > SAME_POSITION:
            kept.append(header)
            last = place
    return tuple(kept)


def _dixon(header: SliceHeader) -> set[str]:
    names = {"W": "WATER", "F": "FAT", "IP": "IN_PHASE", "IN": "IN_PHASE", "OP": "OUT_PHASE", "OPP": "OUT_PHASE"}
    names |= {name: name for name in names.values()} | {"OPP_PHASE": "OUT_PHASE"}
    return {names[kind] for kind in header.image_type[2:] if kind in names}


def _identity(header: SliceHeader) -> tuple[tuple[int, ...], str, int, str, int]:
    """A total order that the order of arrival cannot change; series UIDs compare as numbers."""
    series = header.series_instance_uid
    parts = tuple(int(part) for part in series.split(".") if part.isdecimal())
    return parts, series, header.instance_number, header.sop_instance_uid, header.frame or 0
