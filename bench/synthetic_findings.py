"""Plausible findings: severities with the frequencies of RSNA 2024, correlated within a study."""

from statistics import NormalDist
from typing import Any

import numpy as np

from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Level, Severity

# 25 rows with the columns in ``COLUMNS``.
Reading = list[tuple[Any, ...]]

COLUMNS = ("condition", "level", "severity", "normal_mild", "moderate", "severe", "shows", "reason",
           "frame", "column", "row", "x", "y", "z")  # fmt: skip
# Percentages of moderate and severe findings, L1/L2 to L5/S1, equal on both sides.
RSNA = {
    "canal": ((3.4, 1.1), (7.6, 2.7), (11.7, 6.2), (12.0, 12.9), (2.6, 1.0)),
    "foraminal": ((3.2, 0.1), (8.7, 0.6), (20.8, 2.0), (31.9, 7.1), (26.4, 10.4)),
    "subarticular": ((5.1, 1.5), (13.5, 4.4), (23.0, 9.8), (31.6, 23.4), (20.8, 7.5)),
}
# Shares of a severity's variance that its study has in common, and that its level has.
STUDY_SHARE, LEVEL_SHARE = 0.56, 0.2
# Shares of findings that are not assessed, and of those with an uncertain view.
NOT_ASSESSED, UNCERTAIN = 0.01, 0.02


def readings(rng: np.random.Generator, count: int) -> list[Reading]:
    """Random findings of ``count`` studies."""
    residual = 1 - STUDY_SHARE - LEVEL_SHARE
    latent = sum(
        np.sqrt(share) * rng.standard_normal((count, *shape))
        for share, shape in ((STUDY_SHARE, (1, 1)), (LEVEL_SHARE, (1, 5)), (residual, (5, 5)))
    ).reshape(count, 25)
    severities = np.stack(
        [np.digitize(latent[:, k], _borders(key)) for k, key in enumerate(ALL_FINDINGS)], axis=1
    )
    top = np.round(rng.uniform(0.45, 0.99, (count, 25)), 4)
    shows = np.round(
        np.where(rng.random((count, 25)) < UNCERTAIN, 0.4, rng.uniform(0.5, 1, (count, 25))), 4
    )
    not_assessed = rng.random((count, 25)) < NOT_ASSESSED
    positions = np.round(rng.normal(0, 60, (count, 25, 5)), 2)
    columns = (part.tolist() for part in (not_assessed, severities, top, shows, positions))
    return [_reading(*study) for study in zip(*columns, strict=True)]


def _reading(*columns: list[Any]) -> Reading:
    return [_finding(*values) for values in zip(ALL_FINDINGS, *columns, strict=True)]


def _borders(key: FindingKey) -> list[float]:
    """The limits on a standard normal variable above which a finding is moderate, and severe."""
    rates = next(rates for name, rates in RSNA.items() if name in key.condition)
    moderate, severe = rates[list(Level).index(key.level)]
    return [NormalDist().inv_cdf(1 - share / 100) for share in (moderate + severe, severe)]


def _finding(
    key: FindingKey,
    not_assessed: bool,
    severity: int,
    top: float,
    shows: float,
    position: list[float],
) -> tuple[Any, ...]:
    finding = key.condition.value, key.level.value
    if not_assessed:
        return (*finding, None, None, None, None, None, "no axial slice there", *[None] * 6)
    others = round((1 - top) / 2, 4)
    probabilities = [top if n == severity else others for n in range(3)]
    return (*finding, list(Severity)[severity].value, *probabilities, shows, None, 7, *position)
