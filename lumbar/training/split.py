"""Training, validation and test part: 80:10:10 by patient, stratified by severity, seeded."""

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum

from lumbar.spine.anatomy import Severity


class Part(StrEnum):
    """The part of a data set that a patient's studies belong to."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_TENTHS = (Part.TRAIN,) * 4 + (Part.VALIDATION,) + (Part.TRAIN,) * 4 + (Part.TEST,)


def split(patients: Mapping[str, Iterable[Severity]], seed: int) -> dict[str, Part]:
    """The part of each patient. ``patients``: all severities of each patient's labelled findings.

    Patients are sorted by their number of severe, then of moderate findings, ties in seeded random
    order; of every ten, the fifth is for validation and the tenth for testing.
    """

    def sort_key(patient: str) -> tuple[int, int, str]:
        severities = list(patients[patient])
        chance = hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()
        return severities.count(Severity.SEVERE), severities.count(Severity.MODERATE), chance

    return {patient: _TENTHS[i % 10] for i, patient in enumerate(sorted(patients, key=sort_key))}
