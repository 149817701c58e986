"""Simulated readers, who grade with errors of known size, so the best possible figure is known.

A reader sees a finding's burden (0–3, see ``truth``) with a random error. Most errors change
nothing; near the limit of a severity they give the neighbouring one. Readers therefore differ on
borderline findings, as real ones do, and two of them agree as well as in Lurie et al. (Spine 33,
2008):
Cohen's kappa .73 for the canal, .58 for the foramina, .49 for the recesses.
"""

from collections.abc import Mapping

import numpy as np

from lumbar.phantoms.truth import severity
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Role, Severity

KAPPA: Mapping[Role, float] = {Role.SAGITTAL_T2: 0.73, Role.SAGITTAL_T1: 0.58, Role.AXIAL_T2: 0.49}
# Standard deviation of a reader's error in units of burden that gives these kappas with the
# phantoms' shares of the severities, by the role in which the condition is read.
ERROR: Mapping[Role, float] = {
    Role.SAGITTAL_T2: 0.130,
    Role.SAGITTAL_T1: 0.281,
    Role.AXIAL_T2: 0.404,
}


def simulate_reading(
    rng: np.random.Generator, burdens: Mapping[FindingKey, float]
) -> dict[FindingKey, Severity]:
    """One reader's severities of all 25 findings; none differs from the truth by more than one."""
    severities = {}
    for key in ALL_FINDINGS:
        true = int(min(burdens[key], 2.999))
        observed = burdens[key] + rng.normal(0, ERROR[key.condition.role])
        limited = np.clip(observed, max(0, true - 1), min(2.999, true + 1.999))
        severities[key] = severity(float(limited))
    return severities
