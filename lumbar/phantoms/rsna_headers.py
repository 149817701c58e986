"""Gives a phantom's files the headers that the files of the RSNA 2024 data set have.

These are single-frame and RLE-compressed. The file meta information names Enhanced MR; SOPClassUID,
Modality, functional groups, times and frame of reference are missing; SOP Instance UIDs are short
and repeat in every series; of the description only the weighting is left.
"""

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID, EnhancedMRImageStorage, RLELossless

KEPT = {
    "SpecificCharacterSet",
    "ContentDate",
    "ContentTime",
    "InstitutionName",  # the real files have none; here it says that the images are synthetic
    "SliceThickness",
    "SpacingBetweenSlices",
    "PatientPosition",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceLocation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "PixelData",
}


def rewrite_as_rsna(folder: Path) -> None:
    """Rewrites ``<folder>/<series_id>/*.dcm`` in place; the folder's name is the study's id."""
    for file in sorted(folder.glob("*/*.dcm")):
        ds = dcmread(file)
        _strip(ds, folder.name, file.parent.name)
        ds.save_as(file)


def _strip(ds: FileDataset, study: str, series: str) -> None:
    weighting = "T1" if "T1" in ds.SeriesDescription else "T2"
    for element in list(ds):
        if element.keyword not in KEPT:
            del ds[element.tag]
    ds.PatientID = ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = f"{study}.{series}"
    uid = UID(f"{study}.1.{ds.InstanceNumber}")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.SeriesDescription = weighting
    ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    if ds.file_meta.TransferSyntaxUID != RLELossless:
        ds.compress(RLELossless, encoding_plugin="gdcm", generate_instance_uid=False)
