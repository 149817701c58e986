"""Instances small enough to create dozens of them per test."""

from hashlib import sha256
from io import BytesIO

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from db.ingest import Arrival
from lumbar.store.arrivals import Announcement

ROOT = "1.2.826.0.1.3680043.8.498"
TIMES = {"T1": (500, 12), "T2": (3500, 100)}
ORIENTATIONS = {"sagittal": [0, 1, 0, 0, 0, -1], "axial": [1, 0, 0, 0, 1, 0]}


def make_slice(study: int = 1, series: int = 1, number: int = 1, **elements) -> Dataset:
    """An MR slice of 8 × 8 pixels of the value ``fill``; plane and weighting give its role."""
    plane, weighting = elements.pop("plane", "sagittal"), elements.pop("weighting", "T2")
    fill = elements.pop("fill", number)
    ds = Dataset()
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = f"{ROOT}.{study}.{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.{study}", f"{ROOT}.{study}.{series}"
    ds.PatientID, ds.PatientName, ds.Modality = f"P{study}", f"Test^{study}", "MR"
    ds.InstanceNumber, ds.SeriesNumber = number, series
    ds.ImageOrientationPatient = ORIENTATIONS[plane]
    ds.ImagePositionPatient = [number * 4.0, 0, 0] if plane == "sagittal" else [0, 0, number * 4.0]
    ds.PixelSpacing, ds.SliceThickness, ds.FrameOfReferenceUID = [30, 30], 4, f"{ROOT}.{study}.9"
    ds.RepetitionTime, ds.EchoTime = TIMES[weighting]
    ds.ScanningSequence, ds.SequenceVariant, ds.ImageType = "SE", "SK", ["ORIGINAL", "PRIMARY"]
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = np.full((8, 8), fill, np.uint16).tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def arrival(ds: Dataset, source: str = "MR1") -> Arrival:
    """The dataset as the receiver hands it over."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return Arrival(
        BytesIO(buffer.getvalue()),
        Announcement(
            str(ExplicitVRLittleEndian), str(ds.SOPClassUID), str(ds.SOPInstanceUID), source
        ),
    )


def digest_of(ds: Dataset) -> str:
    """The digest by which the store names the instance, as ``arrival`` hands it over."""
    sent = arrival(ds)
    content = sent.announced.transfer_syntax_uid.encode() + b"\0" + sent.dataset.read()
    return sha256(content).hexdigest()
