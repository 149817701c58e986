"""Whose a study is, on which scanner it was made, and which part of the data the patient belongs to."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from lumbar.dicom.headers import read_header
from lumbar.errors import NotDicom
from lumbar.spine.anatomy import Severity
from lumbar.training.rsna_dataset import Study
from lumbar.training.split import Part, split

PHANTOM = "SYNTHETIC PHANTOM"  # in the InstitutionName of ours


@dataclass(frozen=True)
class Person:
    """``patient`` is only a hash; sex, age (years) and scanner (manufacturer, tesla) are empty where none is said."""

    patient: str
    sex: str
    age: str
    scanner: str
    synthetic: bool


def people_of(studies: Iterable[Study]) -> dict[str, Person]:
    """By study, of those of which any file can be read."""
    headers = ((study.name, _first_header(study)) for study in studies)
    return {name: person_of(header, name) for name, header in headers if header is not None}


def parts_of(studies: Iterable[Study], people: Mapping[str, Person], seed: int) -> dict[str, Part]:
    """By study the part of its patient, of all who have labels, whatever becomes of their images."""
    grades: dict[str, list[Severity]] = {}
    named = {
        study.name: people[study.name].patient
        for study in studies
        if study.name in people and study.severities
    }
    for study in studies:
        if study.name in named:
            grades.setdefault(named[study.name], []).extend(study.severities.values())
    parts = split(grades, seed)
    return {study: parts[patient] for study, patient in named.items()}


def split_sha256(parts: Mapping[str, Part]) -> str:
    """What tells whether two splits are one."""
    return hashlib.sha256(
        "".join(f"{study} {part}\n" for study, part in sorted(parts.items())).encode()
    ).hexdigest()


def person_of(header: Dataset, study: str) -> Person:
    """Of any header of a study; one without PatientID is a patient of its own."""
    return Person(
        patient=hashlib.sha256(f"{header.get('PatientID') or study}".encode()).hexdigest()[:16],
        sex=str(header.get("PatientSex") or ""),
        age=_age(header.get("PatientAge"), header.get("PatientBirthDate"), header.get("StudyDate")),
        scanner=f"{header.get('Manufacturer') or ''} {header.get('MagneticFieldStrength') or ''}".strip(),
        synthetic=str(header.get("InstitutionName") or "") == PHANTOM,
    )


def _first_header(study: Study) -> Dataset | None:
    """Of the first of a study's files that can be read."""
    for file in sorted(study.folder.rglob("*.dcm")):
        try:
            return read_header(file)
        except NotDicom:
            continue
    return None


def _age(age: object, born: object, taken: object) -> str:
    """In years, from PatientAge (``063Y``) or from the dates; empty where neither says."""
    text = str(age or "")
    if text.endswith("Y") and text[:-1].isdigit():
        return str(int(text[:-1]))
    first, last = str(born or ""), str(taken or "")
    if len(first) == len(last) == 8 and (first + last).isdigit():
        return str(int(last[:4]) - int(first[:4]) - (last[4:] < first[4:]))
    return ""
