"""A complete study: patient, scanner and three series, from one seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumbar.errors import WrongSetting
from lumbar.phantoms.chain import Build, Numbering
from lumbar.phantoms.dicom_files import Examination, Series, derive_uid, write_series
from lumbar.phantoms.patient import Patient, draw_patient
from lumbar.phantoms.planes import Region, axial, elsewhere, sagittal
from lumbar.phantoms.scanner import SCANNERS, Scanner, acquire, draw_sequence
from lumbar.phantoms.truth import PhantomTruth, draw_burdens, severity
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Level, Role, Severity

# AccessionNumber and StudyID have at most 16 characters.
SEED_LIMIT = 10**15


@dataclass(frozen=True)
class Kind:
    """The kind of study; without a scanner, one of the usual families is chosen at random."""

    scanner: Scanner | None = None
    numbering: Numbering = Numbering.USUAL
    region: Region = Region.LUMBAR
    build: Build = Build.USUAL


@dataclass(frozen=True)
class Plan:
    """A study before rendering: its truth and its slice positions."""

    truth: PhantomTruth
    patient: Patient
    examination: Examination
    series: tuple[Series, ...]


def write_study(
    folder: Path,
    seed: int,
    *,
    severities: Mapping[FindingKey, Severity] | None = None,
    kind: Kind = Kind(),
) -> PhantomTruth:
    """Writes a study as ``<folder>/<series_number>/<instance_number>.dcm``; returns its truth.

    The same seed (0 to 10**15 - 1), severities and kind give the same bytes. ``severities``
    replaces the random severities of some or all findings.

    Raises:
        WrongSetting: the seed is outside its range.
    """
    plan = draw_plan(seed, severities, kind)
    write_plan(plan, folder, str)
    return plan.truth


def draw_plan(
    seed: int, severities: Mapping[FindingKey, Severity] | None = None, kind: Kind = Kind()
) -> Plan:
    """Draws a study without rendering it, which takes negligible time.

    Raises:
        WrongSetting: the seed is outside its range.
    """
    if not 0 <= seed < SEED_LIMIT:
        raise WrongSetting(
            f"A phantom's seed must be from 0 to {SEED_LIMIT - 1}; choose another one."
        )
    rng = np.random.default_rng((seed, 0))
    burdens = draw_burdens(rng, severities)
    patient = draw_patient(rng, burdens, kind.numbering, kind.build)
    grades = {key: severity(burdens[key]) for key in ALL_FINDINGS}
    drawn = SCANNERS[rng.integers(len(SCANNERS))]
    scanner = kind.scanner or drawn
    # Other severities or another kind make it another study, even with the same seed.
    study = derive_uid(
        seed, *grades.values(), scanner.name, kind.numbering, kind.region, kind.build
    )
    year, born = int(rng.integers(2015, 2026)), int(rng.integers(25, 85))
    examination = Examination(
        seed=seed,
        study_instance_uid=study,
        frame_of_reference_uid=derive_uid(study, "frame of reference"),
        date=f"{year}{rng.integers(1, 13):02}{rng.integers(1, 29):02}",
        time=f"{rng.integers(7, 20):02}{rng.integers(60):02}{rng.integers(60):02}",
        birth_date=f"{year - born}{rng.integers(1, 13):02}{rng.integers(1, 29):02}",
        sex="F" if rng.random() < 0.5 else "M",
        scanner=scanner,
    )
    block = (sagittal(rng, patient, int(rng.choice(scanner.sagittal_matrix))),)
    if kind.region is not Region.LUMBAR:
        block = (elsewhere(block[0], patient, kind.region),)
    discs = axial(
        rng, patient, int(rng.choice(scanner.axial_matrix)), bool(rng.random() < scanner.tilted)
    )
    stir = bool(rng.random() < 0.2)
    roles = {
        Role.SAGITTAL_T2: ("SAG STIR" if stir else "SAG T2", block),
        Role.SAGITTAL_T1: ("SAG T1", block),
        Role.AXIAL_T2: ("AX T2", discs),
    }
    series = tuple(
        Series(
            number=number,
            series_instance_uid=derive_uid(study, role),
            description=description,
            sequence=draw_sequence(rng, scanner, role, stir=stir and role is Role.SAGITTAL_T2),
            stacks=stacks,
        )
        for number, (role, (description, stacks)) in enumerate(roles.items(), start=1)
    )
    truth = PhantomTruth(
        study_instance_uid=study,
        severities=grades,
        points={key: patient.point(key) for key in ALL_FINDINGS},
        disc_centres={level: patient.disc(level).frame.origin for level in Level},
        numbering=kind.numbering,
        series=tuple((s.series_instance_uid, role) for s, role in zip(series, roles, strict=True)),
    )
    return Plan(truth, patient, examination, series)


def write_plan(plan: Plan, folder: Path, name: Callable[[int], str]) -> None:
    """Renders and writes a study; ``name`` maps a SeriesNumber to the name of its folder."""
    for series in plan.series:
        rng = np.random.default_rng((plan.examination.seed, series.number))
        slices = acquire(
            rng, plan.examination.scanner, series.sequence, plan.patient, series.stacks
        )
        write_series(folder / name(series.number), plan.examination, series, slices)
