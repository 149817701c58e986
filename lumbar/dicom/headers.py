"""Headers of untrusted MR files, read into the values that the spine geometry works on."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from lumbar.dicom.content_elements import (
    content,
    has_contrast_agent,
    image_type,
    stating_content,
)
from lumbar.dicom.elements import as_list, words
from lumbar.errors import NotDicom
from lumbar.spine.slices import SliceHeader

MAX_SIDE = 4096  # rows or columns
MAX_FRAMES = 10_000
# Wider than any scanner's values, but narrow enough that the arithmetic cannot overflow.
SPACING_MM, MAX_COORDINATE_MM = (0.02, 50.0), 10_000.0
TOLERANCE = 1e-3  # of the direction cosines' lengths and of their dot product

Triple = tuple[float, float, float]

MULTI_FRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)


def read_header(path: Path) -> Dataset:
    """All elements before the pixels, which are not read.

    Raises:
        NotDicom: the file is not DICOM, is damaged or deflated, or cannot be opened.
    """
    with raising_not_dicom("the file cannot be read as DICOM; it may be damaged"):
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise NotDicom("the file is deflated, which is not supported; send it uncompressed")
        with path.open("rb") as stream:
            return read_up_to_pixels(stream)


def read_up_to_pixels(stream: BinaryIO) -> Dataset:
    """As ``read_header``, but raises pydicom's own exceptions.

    Leaves the stream at the pixel element, or at its end if there is none.
    """
    return dcmread(stream, stop_before_pixels=True)


def slice_headers(ds: Dataset) -> list[SliceHeader]:
    """One slice header for a single-frame MR instance, one per frame for Enhanced MR.

    Direction cosines are made exactly orthonormal.

    Raises:
        NotDicom: the instance is not an MR image, or its geometry is missing or implausible:
            direction cosines not orthonormal within ``TOLERANCE``, spacing or position outside what
            scanners produce, or a value that is not finite.
    """
    with raising_not_dicom("the header cannot be read; it may be damaged"):
        sop_class = text(ds, "SOPClassUID") or text(
            getattr(ds, "file_meta", Dataset()), "MediaStorageSOPClassUID"
        )
        supported = sop_class in (MRImageStorage, *MULTI_FRAME)
        if text(ds, "Modality") not in ("MR", "") or not supported:
            raise NotDicom("not an MR image")
        frames = frame_count(ds)
        if sop_class not in MULTI_FRAME:
            if frames != 1:
                raise NotDicom("a multi-frame image without functional groups")
            return [_slice_header([ds], sop_class, frame=None)]
        groups = ds.get("PerFrameFunctionalGroupsSequence")
        if not groups or len(groups) != frames:
            raise NotDicom("PerFrameFunctionalGroupsSequence does not match NumberOfFrames")
        return [
            _slice_header(frame_datasets(ds, n), sop_class, frame=n) for n in range(1, frames + 1)
        ]


def frame_count(ds: Dataset) -> int:
    """NumberOfFrames; 1 if absent or empty.

    Raises:
        NotDicom: it is outside 1 to ``MAX_FRAMES``.
    """
    frames = 1 if ds.get("NumberOfFrames") is None else int(ds.NumberOfFrames)
    if not 1 <= frames <= MAX_FRAMES:
        raise NotDicom(f"NumberOfFrames is not within 1 to {MAX_FRAMES}")
    return frames


def frame_datasets(ds: Dataset, frame: int | None) -> list[Dataset]:
    """The data sets that hold a frame's attributes, in order of precedence.

    These are the items of its per-frame functional groups, those of the shared ones, and the root.
    ``frame`` is 1-based; None in a single-frame instance, which has only its root.
    """
    if frame is None:
        return [ds]
    per_frame = ds.PerFrameFunctionalGroupsSequence[frame - 1]
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    macros = (
        element.value for group in (per_frame, shared[0]) for element in group if element.VR == "SQ"
    )
    return [*(macro[0] for macro in macros if macro), ds]


def first_number(datasets: Sequence[Dataset], *keywords: str) -> float | None:
    """The first finite value under any of the keywords, tried in order; None if there is none."""
    for keyword in keywords:
        for dataset in datasets:
            values = numbers(dataset, keyword)
            if values:
                return values[0]
    return None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The element's values; empty if absent or empty, or if any is not a finite number."""
    try:
        values = tuple(float(v) for v in as_list(dataset.get(keyword)))
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return ()
    return values if all(map(math.isfinite, values)) else ()


def text(dataset: Dataset, keyword: str) -> str:
    """The element's value without its padding; empty if absent."""
    return str(dataset.get(keyword) or "").strip(" \0")


@contextmanager
def raising_not_dicom(reason: str) -> Iterator[None]:
    """Converts any exception of pydicom and the decoders about damaged bytes into NotDicom.

    Warnings are dropped, as they quote the values they complain about.

    Raises:
        NotDicom: any exception was raised within the block.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except NotDicom:
        raise
    except InvalidDicomError:
        raise NotDicom("not a DICOM file") from None
    except OSError as error:
        if error.errno is None:  # raised by pydicom itself, about the content
            raise NotDicom(reason) from None
        raise NotDicom(f"the file cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - here every exception means damage, and its text may quote values
        raise NotDicom(reason) from None


def _slice_header(datasets: list[Dataset], sop_class: str, frame: int | None) -> SliceHeader:
    root, stating = datasets[-1], stating_content(datasets)
    along_row, down_column = _orientation(_geometry(datasets, "ImageOrientationPatient", 6))
    x, y, z = _geometry(datasets, "ImagePositionPatient", 3)
    between_rows, between_columns = _geometry(datasets, "PixelSpacing", 2)
    if min(between_rows, between_columns) <= 0:
        raise NotDicom("PixelSpacing is not positive")
    low, high = SPACING_MM
    if min(between_rows, between_columns) < low or max(between_rows, between_columns) > high:
        raise NotDicom(f"PixelSpacing is not within {low} to {high} mm")
    if max(map(abs, (x, y, z))) > MAX_COORDINATE_MM:
        raise NotDicom(
            f"ImagePositionPatient is over {MAX_COORDINATE_MM / 1000:.0f} m from the origin"
        )
    return SliceHeader(
        study_instance_uid=_required(root, "StudyInstanceUID"),
        series_instance_uid=_required(root, "SeriesInstanceUID"),
        sop_class_uid=sop_class,
        sop_instance_uid=_required(root, "SOPInstanceUID"),
        frame=frame,
        frame_of_reference_uid=text(root, "FrameOfReferenceUID"),
        instance_number=int(first_number([root], "InstanceNumber") or 0),
        rows=_side(root, "Rows"),
        columns=_side(root, "Columns"),
        position=(x, y, z),
        orientation=(*along_row, *down_column),
        spacing=(between_rows, between_columns),
        thickness=first_number(datasets, "SliceThickness"),
        repetition_time=first_number(datasets, "RepetitionTime"),
        echo_time=first_number(datasets, "EffectiveEchoTime", "EchoTime"),
        inversion_time=first_number(datasets, "InversionTimes", "InversionTime"),
        scanning_sequence=_scanning_sequence(datasets),
        image_type=image_type(stating),
        scan_options=_scan_options(datasets),
        contrast_agent=has_contrast_agent(stating),
        content=content(stating, first_number(stating, "DiffusionBValue")),
        echo_number=_ordinal(stating, "EchoNumbers"),
        temporal_position=_ordinal(stating, "TemporalPositionIndex", "TemporalPositionIdentifier"),
    )


def _geometry(datasets: list[Dataset], keyword: str, count: int) -> tuple[float, ...]:
    source = next((dataset for dataset in datasets if _has_value(dataset, keyword)), None)
    if source is None:
        raise NotDicom(f"{keyword} is missing")
    values = numbers(source, keyword)
    if len(values) != count:
        raise NotDicom(f"{keyword} does not hold {count} numbers")
    return values


def _has_value(dataset: Dataset, keyword: str) -> bool:
    return keyword in dataset and dataset.get_item(keyword).value not in (None, "", b"")


def _orientation(cosines: tuple[float, ...]) -> tuple[Triple, Triple]:
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > TOLERANCE:
        raise NotDicom("ImageOrientationPatient is not two unit vectors at a right angle")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    (a, b, c), (d, e, f) = row.tolist(), column.tolist()
    return (a, b, c), (d, e, f)


def _side(root: Dataset, keyword: str) -> int:
    side = first_number([root], keyword)
    if side is None or not 1 <= side <= MAX_SIDE:
        raise NotDicom(f"{keyword} is missing or not within 1 to {MAX_SIDE}")
    return int(side)


def _required(root: Dataset, keyword: str) -> str:
    if value := text(root, keyword):
        return value
    raise NotDicom(f"{keyword} is missing")


def _scanning_sequence(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """ScanningSequence, or its equivalent from the Enhanced MR attributes (PS3.3 C.8.13.4)."""
    if stated := words(datasets, "ScanningSequence"):
        return stated
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    pulse = "".join(words(datasets, "EchoPulseSequence"))
    planar = ("EP",) if words(datasets, "EchoPlanarPulseSequence") == ("YES",) else ()
    inverted = ("IR",) if words(datasets, "InversionRecovery") == ("YES",) else ()
    return (*echo.get(pulse, ()), *planar, *inverted)


def _scan_options(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """ScanOptions, with FS and WS also from the Enhanced MR attributes (PS3.3 C.8.13.5)."""
    suppressed = words(datasets, "SpectrallySelectedSuppression")
    excited = words(datasets, "SpectrallySelectedExcitation")
    without_fat = {"FAT", "FAT_AND_WATER"} & set(suppressed) or "WATER" in excited
    without_water = {"WATER", "FAT_AND_WATER"} & set(suppressed) or "FAT" in excited
    return (
        *words(datasets, "ScanOptions"),
        *(("FS",) if without_fat else ()),
        *(("WS",) if without_water else ()),
    )


def _ordinal(datasets: Sequence[Dataset], *keywords: str) -> int:
    """A number that counts from 1; 1 if absent or 0, as Siemens writes it for the only echo."""
    return max(1, int(first_number(datasets, *keywords) or 1))
