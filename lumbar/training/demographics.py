"""Patient demographics and scanner of a study, and the part of the data set it belongs to."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from lumbar.dicom.headers import read_header
from lumbar.elements import date, first_positive, text
from lumbar.errors import NotDicom
from lumbar.spine.anatomy import Severity
from lumbar.training.rsna_dataset import Study
from lumbar.training.split import Part, split

# InstitutionName of the phantoms.
PHANTOM = "SYNTHETIC PHANTOM"


@dataclass(frozen=True)
class Demographics:
    """Patient and scanner of a study.

    ``patient`` is a hash, never the identifier. ``sex``, ``age`` (years) and ``scanner``
    (manufacturer, tesla) are empty where the header lacks them.
    """

    patient: str
    sex: str
    age: str
    scanner: str
    synthetic: bool


def demographics_by_study(studies: Iterable[Study]) -> dict[str, Demographics]:
    """Demographics by study name; a study without a readable file is omitted."""
    headers = ((study.name, _first_header(study)) for study in studies)
    return {name: demographics_of(header, name) for name, header in headers if header is not None}


def parts_by_study(
    studies: Iterable[Study], people: Mapping[str, Demographics], seed: int
) -> dict[str, Part]:
    """The part of each labelled study's patient, whether or not its images are usable."""
    severities: dict[str, list[Severity]] = {}
    patients = {
        study.name: people[study.name].patient
        for study in studies
        if study.name in people and study.severities
    }
    for study in studies:
        if study.name in patients:
            severities.setdefault(patients[study.name], []).extend(study.severities.values())
    parts = split(severities, seed)
    return {study: parts[patient] for study, patient in patients.items()}


def split_sha256(parts: Mapping[str, Part]) -> str:
    """Digest of a split, hexadecimal: equal for equal splits."""
    return hashlib.sha256(
        "".join(f"{study} {part}\n" for study, part in sorted(parts.items())).encode()
    ).hexdigest()


def demographics_of(header: Dataset, study: str) -> Demographics:
    """From any header of a study; a study without a PatientID counts as a separate patient."""
    known = first_positive([header], "MagneticFieldStrength") is not None
    tesla = text(header, "MagneticFieldStrength") if known else ""
    scanner = f"{text(header, 'Manufacturer')} {tesla}"
    patient = text(header, "PatientID") or study
    return Demographics(
        patient=hashlib.sha256(patient.encode("utf-8", "replace")).hexdigest()[:16],
        sex=text(header, "PatientSex"),
        age=_age(header),
        scanner=scanner.strip(),
        synthetic=text(header, "InstitutionName") == PHANTOM,
    )


def _first_header(study: Study) -> Dataset | None:
    """The header of the study's first readable file."""
    for file in sorted(study.folder.rglob("*.dcm")):
        try:
            return read_header(file)
        except NotDicom:
            continue
    return None


def _age(header: Dataset) -> str:
    """In years, from PatientAge (``063Y``) or the two dates; empty if neither is usable."""
    age = text(header, "PatientAge")
    if age.endswith("Y") and age[:-1].isdigit() and int(age[:-1]):
        return str(int(age[:-1]))
    first, last = date(header, "PatientBirthDate"), date(header, "StudyDate")
    if first and last:
        return str(int(last[:4]) - int(first[:4]) - (last[4:] < first[4:]))
    return ""
