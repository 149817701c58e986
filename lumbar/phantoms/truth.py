"""The truth of a phantom: 25 severities, drawn from a continuous latent variable, and points."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lumbar.phantoms.chain import Numbering
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Severity

Point = tuple[float, float, float]

# Shares of normal/mild and moderate by level (the rest is severe), from the RSNA 2024 label file.
_CANAL = ((0.955, 0.034), (0.897, 0.076), (0.822, 0.117), (0.751, 0.120), (0.965, 0.026))
_FORAMEN = ((0.967, 0.032), (0.908, 0.087), (0.771, 0.208), (0.610, 0.319), (0.632, 0.264))
_RECESS = ((0.933, 0.051), (0.821, 0.135), (0.671, 0.230), (0.450, 0.316), (0.717, 0.208))
PRIORS: Mapping[Condition, tuple[tuple[float, float], ...]] = {
    Condition.SPINAL_CANAL_STENOSIS: _CANAL,
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: _FORAMEN,
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: _FORAMEN,
    Condition.LEFT_SUBARTICULAR_STENOSIS: _RECESS,
    Condition.RIGHT_SUBARTICULAR_STENOSIS: _RECESS,
}

# Shares of a finding's latent variance common to the patient, and to the level.
_PATIENT_SHARE, _LEVEL_SHARE = 0.15, 0.35


@dataclass(frozen=True)
class PhantomTruth:
    """The truth of one written phantom study.

    ``severities`` and ``points`` have all 25 findings; points and ``disc_centres`` are in mm (LPS).
    A canal's point is the centre of the dural sac at the disc's mid-height; a foramen's is its
    centre; a subarticular finding's is the lateral recess at the disc. Levels are counted upwards
    from the lowest disc outside the sacrum. ``series`` has SeriesInstanceUID and role in order of
    SeriesNumber.
    """

    study_instance_uid: str
    severities: Mapping[FindingKey, Severity]
    points: Mapping[FindingKey, Point]
    disc_centres: Mapping[Level, Point]
    series: tuple[tuple[str, Role], ...]
    numbering: Numbering = Numbering.USUAL


def draw_burdens(
    rng: np.random.Generator, severities: Mapping[FindingKey, Severity] | None = None
) -> dict[FindingKey, float]:
    """The burden of each of the 25 findings: 0–1 normal or mild, 1–2 moderate, 2–3 severe.

    Findings of one level and, less so, of one patient are correlated. ``severities`` replace the
    random ones; the position within the severity remains random.
    """
    fixed = severities or {}
    patient = rng.standard_normal()
    levels = dict(zip(Level, rng.standard_normal(len(Level)), strict=True))
    residual = math.sqrt(1 - _PATIENT_SHARE - _LEVEL_SHARE)
    burdens = {}
    for key in ALL_FINDINGS:
        latent = (
            math.sqrt(_PATIENT_SHARE) * patient
            + math.sqrt(_LEVEL_SHARE) * levels[key.level]
            + residual * rng.standard_normal()
        )
        share = 0.5 * (1 + math.erf(latent / math.sqrt(2)))
        burden = _burden(share, *PRIORS[key.condition][list(Level).index(key.level)])
        if key in fixed:
            burden = list(Severity).index(fixed[key]) + burden % 1
        burdens[key] = burden
    return burdens


def severity(burden: float) -> Severity:
    """The severity of a burden of 0–3."""
    return list(Severity)[min(2, int(burden))]


def measure(burden: float, healthy: float, mild: float, moderate: float, worst: float) -> float:
    """A length or share at a burden (0–3), interpolated between four values.

    ``healthy`` is at 0, ``mild`` and ``moderate`` are at the limits between severities (1 and 2),
    ``worst`` is at 3. Below 1 the change is quadratic: most normal findings are near ``healthy``.
    """
    at = burden if burden > 1 else burden**2
    return float(np.interp(at, (0, 1, 2, 3), (healthy, mild, moderate, worst)))


def _burden(share: float, normal: float, moderate: float) -> float:
    if share < normal:
        return share / normal
    if share < normal + moderate:
        return 1 + (share - normal) / moderate
    return 2 + min(0.999, (share - normal - moderate) / (1 - normal - moderate))
