"""Objects of other classes than MR images, as they lie in a study beside its images."""

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from tests.factories.instances import ROOT, make_slice

Reference = tuple[str, str]  # Study and SOP Instance UID


def make_object(sop_class: str, number: int = 1, study: int = 1, **elements: object) -> Dataset:
    """An object of any class of the study, in a series of its own."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"{ROOT}.{study}.90.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.{study}", f"{ROOT}.{study}.90"
    ds.PatientID, ds.PatientName, ds.Modality = f"P{study}", f"Test^{study}", "OT"
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ""
    ds.PatientBirthDate = ds.PatientSex = ds.ReferringPhysicianName = ""
    ds.InstanceNumber, ds.SeriesNumber = number, 90
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def make_secondary_capture(number: int = 1, study: int = 1) -> Dataset:
    """A picture of 2 × 2 pixels in colour."""
    return make_object(
        SecondaryCaptureImageStorage,
        number,
        study,
        ConversionType="WSD",
        Rows=2,
        Columns=2,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=bytes(12),
    )


def make_key_objects(
    code: str,
    references: Iterable[Reference],
    number: int = 1,
    study: int = 1,
    scheme: str = "DCM",
    **elements: object,
) -> Dataset:
    """A Key Object Selection Document with a title's code; a rejection note with some."""
    return make_object(
        KeyObjectSelectionDocumentStorage,
        number,
        study,
        Modality="KO",
        ConceptNameCodeSequence=[coded(code, scheme)],
        ContentDate="20260102",
        ContentTime="101500",
        CurrentRequestedProcedureEvidenceSequence=[
            evidence(study_uid, instance) for study_uid, instance in references
        ],
        **elements,
    )


def make_note(title: str, rejected: Iterable[Dataset], number: int = 9, **elements) -> Dataset:
    """A note that rejects these instances of one study."""
    references = [(ds.StudyInstanceUID, ds.SOPInstanceUID) for ds in rejected]
    study = int(references[0][0].rpartition(".")[2])
    return make_key_objects(title, references, number, study, **elements)


def coded(code: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, "a meaning"
    return item


def evidence(study_uid: str, *instances: str) -> Dataset:
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID, series.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    series.ReferencedSOPSequence = [referenced(uid) for uid in instances]
    study.ReferencedSeriesSequence = [series]
    return study


def referenced(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = make_slice().SOPClassUID, uid
    return item


def other_objects(study: int = 1) -> list[Dataset]:
    """What a PACS keeps in a study beside its images."""
    image = make_slice(study)
    return [
        make_secondary_capture(1, study),
        make_object(
            GrayscaleSoftcopyPresentationStateStorage,
            2,
            study,
            Modality="PR",
            PresentationLUTShape="IDENTITY",
        ),
        make_object(
            BasicTextSRStorage,
            3,
            study,
            Modality="SR",
            ValueType="CONTAINER",
            ConceptNameCodeSequence=[coded("11528-7", "LN")],
        ),
        make_object(
            EncapsulatedPDFStorage,
            4,
            study,
            Modality="DOC",
            MIMETypeOfEncapsulatedDocument="application/pdf",
            EncapsulatedDocument=b"%PDF-1.4",
        ),
        make_key_objects("113000", [(image.StudyInstanceUID, image.SOPInstanceUID)], 5, study),
    ]
