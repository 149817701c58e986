"""What the images of a study state of the patient and the study, and what counts where they differ.

Scanners and PACS fill these elements in image by image: some are empty in one series, corrected in
another, or coerced on the way (PS3.4 B.4.1.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any

from lumbar.person_name import same_name

if TYPE_CHECKING:
    from pydicom import Dataset

_KEYWORDS = {
    "patient_identifier": "PatientID",
    "issuer": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "referring_physician": "ReferringPhysicianName",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "study_description": "StudyDescription",
}
_NAMES = ("patient_name", "referring_physician")
# A copy of an image that states another value of these is a correction (``corrects``).
_IDENTIFYING = ("patient_name", "birth_date", "sex", "accession_number")
_LABELS = {
    "patient_name": "patient's name",
    "birth_date": "birth date",
    "sex": "sex",
    "accession_number": "accession number",
    "referring_physician": "referring physician",
    "study_id": "study ID",
    "study_date": "study date",
    "study_description": "study description",
}


@dataclass(frozen=True)
class StudyAttributes:
    """Patient and study as an image states them (see ``lumbar.dicom.instance_identity``).

    Each is empty where the image has no value, or none that can be kept.
    """

    patient_identifier: str = ""
    issuer: str = ""
    patient_name: str = ""
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""
    accession_number: str = ""
    referring_physician: str = ""
    study_id: str = ""
    study_date: str = ""  # YYYYMMDD
    study_time: str = ""  # HHMMSS.FFFFFF, as far as it goes
    study_description: str = ""

    @classmethod
    def of(cls, source: Any) -> "StudyAttributes":
        """From anything that has these fields, such as an identity or a table's row."""
        return cls(**{field.name: getattr(source, field.name) for field in fields(cls)})

    def same_patient(self, other: "StudyAttributes") -> bool:
        """Whether both state one patient, by PatientID; by name and birth date where it is empty.

        Issuers are not compared: PACS fill them in, and a study is one patient's.
        """
        if self.patient_identifier or other.patient_identifier:
            return self.patient_identifier == other.patient_identifier
        return self.birth_date == other.birth_date and same_name(
            self.patient_name, other.patient_name
        )

    def corrects(self, other: "StudyAttributes") -> bool:
        """Whether a copy with these attributes says something else than one with the other's.

        A value that only one of them has is no contradiction: it was filled in or left out.
        """
        return not self.same_patient(other) or any(
            not _agree(field, getattr(self, field), getattr(other, field)) for field in _IDENTIFYING
        )

    def filled_from(self, earlier: "StudyAttributes") -> "StudyAttributes":
        """These, and the earlier ones' values where these are empty."""
        pairs = zip(astuple(self), astuple(earlier), strict=True)
        return StudyAttributes(*(own or before for own, before in pairs))

    def as_dataset(self) -> "Dataset":
        """As elements."""
        from pydicom import DataElement, Dataset  # slow to import; lists of studies do not need it
        from pydicom.config import IGNORE
        from pydicom.datadict import dictionary_VR

        dataset = Dataset()
        for field, keyword in _KEYWORDS.items():
            value, vr = getattr(self, field), dictionary_VR(keyword)
            dataset[keyword] = DataElement(keyword, vr, value, validation_mode=IGNORE)
        return dataset


@dataclass(frozen=True)
class Disagreement:
    """An attribute of which the images state several values."""

    field: str
    values: tuple[tuple[str, int], ...]  # with the number of images; the one that counts first

    def __str__(self) -> str:
        (first, count), *others = self.values
        stated = ", ".join(f"{value} on {images}" for value, images in others)
        counted = "1 image" if count == 1 else f"{count} images"
        return f"{_LABELS[self.field]}: {first} on {counted} counts; {stated}"

    @property
    def identifies(self) -> bool:
        """Whether the report could be filed wrongly for it."""
        return self.field in _IDENTIFYING


MAX_SPELLINGS = 50  # of different names; more are no misspellings

# What is stated, and by how many images; in the order in which it was first received
Stated = Sequence[tuple[StudyAttributes, int]]


def agreed(stated: Stated) -> StudyAttributes:
    """The value of each attribute that most images state, then the first; never an empty one."""
    counted = {field.name: _counted(field.name, stated) for field in fields(StudyAttributes)}
    return StudyAttributes(**{name: values[0][0] for name, values in counted.items() if values})


def disagreements(stated: Stated) -> tuple[Disagreement, ...]:
    """The attributes of which the images state several values, apart from times of day."""
    counted = {field: _counted(field, stated) for field in _LABELS}
    return tuple(
        Disagreement(field, tuple(values)) for field, values in counted.items() if len(values) > 1
    )


def _counted(field: str, stated: Stated) -> list[tuple[str, int]]:
    """The values of an attribute with their images, the most frequent first, then the first."""
    counts: dict[str, int] = {}
    for attributes, count in stated:
        if (value := getattr(attributes, field)) and count > 0:
            known = _known_as(field, value, counts)
            counts[known] = counts.get(known, 0) + count
    return sorted(counts.items(), key=lambda entry: -entry[1])


def _known_as(field: str, value: str, counts: Mapping[str, int]) -> str:
    """The first spelling of a value; of many names, only equal ones are recognised."""
    if value in counts or field not in _NAMES or len(counts) > MAX_SPELLINGS:
        return value
    return next((known for known in counts if same_name(value, known)), value)


def _agree(field: str, one: str, other: str) -> bool:
    """Whether two values are the same, or one is missing."""
    return not one or not other or (same_name(one, other) if field in _NAMES else one == other)
