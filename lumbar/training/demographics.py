"""Patient demographics and scanner of a study, and the part of the data set it belongs to."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from lumbar.dicom.headers import read_header
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
    scanner = f"{header.get('Manufacturer') or ''} {header.get('MagneticFieldStrength') or ''}"
    return Demographics(
        patient=hashlib.sha256(f"{header.get('PatientID') or study}".encode()).hexdigest()[:16],
        sex=str(header.get("PatientSex") or ""),
        age=_age(header.get("PatientAge"), header.get("PatientBirthDate"), header.get("StudyDate")),
        scanner=scanner.strip(),
        synthetic=str(header.get("InstitutionName") or "") == PHANTOM,
    )


def _first_header(study: Study) -> Dataset | None:
    """The header of the study's first readable file."""
    for file in sorted(study.folder.rglob("*.dcm")):
        try:
            return read_header(file)
        except NotDicom:
            continue
    return None


def _age(age: object, birth_date: object, study_date: object) -> str:
    """In years, from PatientAge (``063Y``) or the two dates; empty if neither is usable."""
    text = str(age or "")
    if text.endswith("Y") and text[:-1].isdigit():
        return str(int(text[:-1]))
    first, last = str(birth_date or ""), str(study_date or "")
    if len(first) == len(last) == 8 and (first + last).isdigit():
        return str(int(last[:4]) - int(first[:4]) - (last[4:] < first[4:]))
    return ""
