"""Train, validation and test parts: 80:10:10 by patient, alike in severity, the same for the same seed."""

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum

from lumbar.spine.anatomy import Severity


class Part(StrEnum):
    """What a patient's studies are used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_TENTHS = (Part.TRAIN,) * 4 + (Part.VALIDATION,) + (Part.TRAIN,) * 4 + (Part.TEST,)


def split(patients: Mapping[str, Iterable[Severity]], seed: int) -> dict[str, Part]:
    """Each patient's part. ``patients``: all severities that a patient's studies are labelled with.

    In the order of how many severe, then moderate findings they have, and at random where these are equal, the fifth
    of every ten is for validation and the tenth for the test.
    """

    def place(patient: str) -> tuple[int, int, str]:
        grades = list(patients[patient])
        chance = hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()
        return grades.count(Severity.SEVERE), grades.count(Severity.MODERATE), chance

    return {patient: _TENTHS[i % 10] for i, patient in enumerate(sorted(patients, key=place))}
