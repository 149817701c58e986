"""What the headers of files given by hand lack, inferred from the rest of the input.

De-identified and converted files often lack a class or a UID: those of the RSNA 2024 data set have
neither SOPClassUID nor Modality, and an Enhanced MR class in the file meta information although
they are single-frame. At the receiver nothing is inferred: there the sender states the class.
"""

import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from lumbar.dicom.functional_groups import frame_count
from lumbar.dicom.headers import MULTI_FRAME, raising_not_dicom
from lumbar.elements import text
from lumbar.errors import NotDicom

MR_CLASSES = ("", MRImageStorage, *MULTI_FRAME)
# Required of CT and of PET images (PS3.3 C.8.2.1, C.8.9.1), unknown to MR.
OTHER_MODALITIES = ("KVP", "Units")
PLANE_GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_NAMESPACE = uuid.UUID("d0c1b7f4-52b5-5f0e-8f39-0f0b7d1c3a52")


def infer_class(header: Dataset) -> None:
    """Fills in a missing SOPClassUID, and a missing SOPInstanceUID from the file meta information.

    Functional groups make an Enhanced MR image; a single frame whose geometry is in the root makes
    an MR image. The file meta information decides only between kinds of Enhanced MR, and against
    other modalities.

    Raises:
        NotDicom: the elements are damaged.
    """
    with raising_not_dicom("the header cannot be read; it may be damaged"):
        for keyword in IDENTIFIERS:
            text(header, keyword)  # raises here, for this file alone, if it is damaged
        meta = getattr(header, "file_meta", Dataset())
        if not text(header, "SOPInstanceUID") and text(meta, "MediaStorageSOPInstanceUID"):
            header.SOPInstanceUID = text(meta, "MediaStorageSOPInstanceUID")
        stated = text(meta, "MediaStorageSOPClassUID")
        if text(header, "SOPClassUID") or stated not in MR_CLASSES:
            return
        if header.get("PerFrameFunctionalGroupsSequence"):
            header.SOPClassUID = stated if stated in MULTI_FRAME else EnhancedMRImageStorage
        elif _is_single_slice(header) and not any(word in header for word in OTHER_MODALITIES):
            header.SOPClassUID = MRImageStorage


def _is_single_slice(header: Dataset) -> bool:
    try:
        single = frame_count(header) == 1
    except NotDicom:
        return False
    return single and all(header.get(keyword) for keyword in PLANE_GEOMETRY)


def infer_uids(headers: Mapping[Path, Dataset]) -> frozenset[Path]:
    """Fills in missing UIDs of one study's images; returns the files whose UIDs were made up.

    A study's UID is taken from the other files, a series' from the files in the same folder, and a
    frame of reference from the same series, if those state only one. Otherwise the study, the
    folder's series or the file gets a UID of its own, so that it can be told apart; what such UIDs
    name exists nowhere else. A frame of reference is never made up. Headers of other SOP classes
    are ignored.
    """
    images = {
        file: header
        for file, header in headers.items()
        if text(header, "SOPClassUID") in MR_CLASSES[1:]
    }
    with warnings.catch_warnings():  # of UIDs that are none, quoting them
        warnings.simplefilter("ignore")
        made_up = _infer_identifiers(images)
        _infer_frames_of_reference(images.values())
    return made_up


def _infer_identifiers(images: Mapping[Path, Dataset]) -> frozenset[Path]:
    made_up: set[Path] = set()
    studies = {text(header, "StudyInstanceUID") for header in images.values()} - {""}
    study = _only(studies)
    stated = sorted(text(header, "SOPInstanceUID") for header in images.values())
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in images:
        folders[file.parent].append(file)
    for number, files in enumerate(folders.values(), 1):
        series = _only(text(images[file], "SeriesInstanceUID") for file in files)
        for ordinal, file in enumerate(files, 1):
            header = images[file]
            if not text(header, "StudyInstanceUID") and len(studies) < 2:
                header.StudyInstanceUID = study or _uid("study", *stated)
                made_up |= set() if study else {file}
            if not text(header, "SeriesInstanceUID"):
                header.SeriesInstanceUID = series or _uid("series", number, *stated)
                made_up |= set() if series else {file}
            if not text(header, "SOPInstanceUID"):
                header.SOPInstanceUID = _uid("image", number, ordinal, *stated)
                made_up.add(file)
    return frozenset(made_up)


def _infer_frames_of_reference(headers: Iterable[Dataset]) -> None:
    by_series: defaultdict[str, list[Dataset]] = defaultdict(list)
    for header in headers:
        by_series[text(header, "SeriesInstanceUID")].append(header)
    for members in by_series.values():
        frame = _only(text(header, "FrameOfReferenceUID") for header in members)
        for header in members:
            if frame and not text(header, "FrameOfReferenceUID"):
                header.FrameOfReferenceUID = frame


def _only(values: Iterable[str]) -> str:
    """The only value that is stated; empty if there is none, or more than one."""
    stated = set(values) - {""}
    return stated.pop() if len(stated) == 1 else ""


def _uid(*parts: object) -> str:
    """A UID derived from the parts: 2.25 and a version 5 UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"
