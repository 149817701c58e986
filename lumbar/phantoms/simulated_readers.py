"""Simulated readers: they grade what is true with errors of known size, so that the best possible figure is known.

A reader sees a finding's burden (0–3, see ``truth``) with an error. Most errors change nothing; where grades meet, they
flip to the neighbouring one. So readers differ over border cases, as real ones do, and two of them agree as well as
those of Lurie et al. (Spine 33, 2008) did: Cohen's kappa .73 for the canal, .58 for the foramina, .49 for the recesses.
"""

from collections.abc import Mapping

import numpy as np

from lumbar.phantoms.truth import severity
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Role, Severity

KAPPA: Mapping[Role, float] = {Role.SAGITTAL_T2: 0.73, Role.SAGITTAL_T1: 0.58, Role.AXIAL_T2: 0.49}
# Standard deviation of a reader's error in units of burden, by where the condition is read, that gives these kappas
# at the shares of the grades that phantoms are drawn with.
ERROR: Mapping[Role, float] = {
    Role.SAGITTAL_T2: 0.130,
    Role.SAGITTAL_T1: 0.281,
    Role.AXIAL_T2: 0.404,
}


def read_by(
    rng: np.random.Generator, burdens: Mapping[FindingKey, float]
) -> dict[FindingKey, Severity]:
    """One reader's 25 grades; none is more than one grade off."""
    grades = {}
    for key in ALL_FINDINGS:
        true = int(min(burdens[key], 2.999))
        seen = burdens[key] + rng.normal(0, ERROR[key.condition.role])
        grades[key] = severity(float(np.clip(seen, max(0, true - 1), min(2.999, true + 1.999))))
    return grades
