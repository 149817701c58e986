"""A phantom's slices as DICOM files."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from lumbar.phantoms.planes import Stack
from lumbar.phantoms.scanner import Scanner, Sequence

_NAMESPACE = uuid.UUID("6f1c1f5e-6c52-5d0e-9a3e-3d9b6c5a7f10")


def derive_uid(*parts: object) -> UID:
    """A UID derived from the parts: 2.25 and a version 5 UUID (DICOM PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}")


@dataclass(frozen=True)
class Examination:
    """The attributes that all files of a study share."""

    seed: int
    study_instance_uid: UID
    frame_of_reference_uid: UID
    date: str  # YYYYMMDD
    time: str  # HHMMSS
    birth_date: str
    sex: str
    scanner: Scanner


@dataclass(frozen=True)
class Series:
    """One series: its sequence and its slices, in order of InstanceNumber."""

    number: int
    series_instance_uid: UID
    description: str
    sequence: Sequence
    stacks: tuple[Stack, ...]


def write_series(
    folder: Path, examination: Examination, series: Series, slices: list[NDArray[np.uint16]]
) -> None:
    """Writes ``<folder>/<instance_number>.dcm`` for every slice, numbered from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = _shared(examination, series, slices)
    positions = [
        (stack, stack.slice_position(i)) for stack in series.stacks for i in range(stack.count)
    ]
    for number, ((stack, position), pixels) in enumerate(
        zip(positions, slices, strict=True), start=1
    ):
        instance = Dataset(shared)
        instance.SOPInstanceUID = derive_uid(series.series_instance_uid, number)
        instance.InstanceNumber = number
        instance.ImagePositionPatient = [_decimal(v) for v in position]
        instance.ImageOrientationPatient = [
            _decimal(v) for v in (*stack.along_row, *stack.down_column)
        ]
        normal = np.cross(stack.along_row, stack.down_column)
        instance.SliceLocation = _decimal(float(position @ normal))
        instance.Rows, instance.Columns = pixels.shape
        instance.PixelData = pixels.astype("<u2").tobytes()
        instance["PixelData"].VR = "OW"
        instance.file_meta = _file_meta(instance.SOPInstanceUID)
        dcmwrite(folder / f"{number}.dcm", instance, enforce_file_format=True)


def _file_meta(sop_instance_uid: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = derive_uid("implementation")
    meta.ImplementationVersionName = "LUMBAR_PHANTOM"
    return meta


def _shared(examination: Examination, series: Series, slices: list[NDArray[np.uint16]]) -> Dataset:
    stack, sequence, scanner = series.stacks[0], series.sequence, examination.scanner
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 100"
    d.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    d.SOPClassUID = MRImageStorage
    d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = examination.date
    d.StudyTime = d.SeriesTime = d.AcquisitionTime = d.ContentTime = examination.time
    d.AccessionNumber = f"P{examination.seed}"
    d.Modality = "MR"
    d.Manufacturer = scanner.name
    d.ManufacturerModelName = f"{scanner.name} {scanner.field} T"
    d.InstitutionName = "SYNTHETIC PHANTOM"
    d.ReferringPhysicianName = ""
    d.StudyDescription = "MR LUMBAR SPINE (SYNTHETIC PHANTOM)"
    d.SeriesDescription = series.description
    d.PatientName = f"PHANTOM^{examination.seed}"
    d.PatientID = f"PHANTOM-{examination.seed}"
    d.PatientBirthDate = examination.birth_date
    d.PatientSex = examination.sex
    d.BodyPartExamined = "LSPINE"
    d.ScanningSequence = ["SE", "IR"] if sequence.inversion else "SE"
    d.SequenceVariant = "SK"
    d.ScanOptions = ""
    d.MRAcquisitionType = "2D"
    d.SliceThickness = _decimal(stack.thickness)
    d.RepetitionTime = _decimal(sequence.repetition)
    d.EchoTime = _decimal(sequence.echo)
    if sequence.inversion:
        d.InversionTime = _decimal(sequence.inversion)
    d.MagneticFieldStrength = _decimal(scanner.field)
    d.SpacingBetweenSlices = _decimal(float(np.linalg.norm(stack.step)))
    d.EchoTrainLength = 3 if sequence.echo < 20 else 16
    d.PatientPosition = "HFS"
    d.StudyInstanceUID = examination.study_instance_uid
    d.SeriesInstanceUID = series.series_instance_uid
    d.StudyID = f"{examination.seed}"
    d.SeriesNumber = series.number
    d.FrameOfReferenceUID = examination.frame_of_reference_uid
    d.PositionReferenceIndicator = ""
    d.ImageComments = "SYNTHETIC PHANTOM"
    d.SamplesPerPixel = 1
    d.PhotometricInterpretation = "MONOCHROME2"
    d.PixelSpacing = [_decimal(stack.spacing)] * 2
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    top = float(np.percentile(slices[len(slices) // 2], 99.5))
    d.WindowCenter, d.WindowWidth = _decimal(round(top / 2)), _decimal(round(top))
    return d


def _decimal(value: float) -> str:
    return (
        f"{value:.9f}".rstrip("0").rstrip(".")
        if abs(value) < 1000
        else f"{value:.6f}".rstrip("0").rstrip(".")
    )
