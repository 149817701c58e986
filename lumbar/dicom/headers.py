"""Headers of untrusted MR files, read into the values that the spine geometry works on."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
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
from lumbar.dicom.functional_groups import frame_count, frame_datasets, private_items
from lumbar.dicom.part10 import read_up_to_pixels
from lumbar.elements import first_number, first_positive, numbers, text, words
from lumbar.errors import NotDicom, Unreadable
from lumbar.spine.slices import SliceHeader

MAX_SIDE = 4096  # rows or columns
# Wider than any scanner's values, but narrow enough that the arithmetic cannot overflow.
SPACING_MM, MAX_COORDINATE_MM = (0.02, 50.0), 10_000.0
# Of the direction cosines' lengths and of their dot product, if they have four or more decimals.
TOLERANCE = 1e-3

Triple = tuple[float, float, float]

INVERSION = ("InversionTimes", "InversionTime")  # 0 where there is none
MULTI_FRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
IMAGE_CLASSES = (MRImageStorage, *MULTI_FRAME)  # MR images that are read


def read_header(path: Path) -> Dataset:
    """All elements before the pixels, which are not read. See ``read_up_to_pixels``.

    Raises:
        NotDicom: the file is not DICOM, is damaged or deflated, has another byte order than it
            states, or cannot be opened.
    """
    with (
        raising_not_dicom("the file cannot be read as DICOM; it may be damaged"),
        path.open("rb") as stream,
    ):
        return read_up_to_pixels(stream)


def slice_headers(ds: Dataset) -> list[SliceHeader]:
    """One slice header for a single-frame MR instance, one per frame for Enhanced MR.

    Direction cosines are made exactly orthonormal.

    Raises:
        NotDicom: the instance is not an MR image, or its geometry is missing or implausible:
            direction cosines farther from orthonormal than their rounding explains, spacing or
            position outside what scanners produce, or a value that is not finite.
    """
    with raising_not_dicom("the header cannot be read; it may be damaged"):
        sop_class = text(ds, "SOPClassUID") or text(
            getattr(ds, "file_meta", Dataset()), "MediaStorageSOPClassUID"
        )
        supported = sop_class in IMAGE_CLASSES
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


@contextmanager
def raising_not_dicom(reason: str) -> Iterator[None]:
    """Converts any exception of pydicom and the decoders about damaged bytes into NotDicom.

    Warnings are dropped, as they quote the values they complain about.

    Raises:
        NotDicom: any exception was raised within the block.
        Unreadable: it was the disk's.
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
        raise Unreadable(f"the file cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - here every exception means damage, and its text may quote values
        raise NotDicom(reason) from None


def _slice_header(datasets: list[Dataset], sop_class: str, frame: int | None) -> SliceHeader:
    root, stating = datasets[-1], stating_content(datasets)
    along_row, down_column = _orientation(_geometry(datasets, "ImageOrientationPatient", 6, any))
    x, y, z = _geometry(datasets, "ImagePositionPatient", 3)
    # Neither ImagerPixelSpacing nor NominalScannedPixelSpacing is in the patient's plane.
    between_rows, between_columns = _geometry(datasets, "PixelSpacing", 2, _positive)
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
        thickness=first_positive(datasets, "SliceThickness"),
        repetition_time=first_positive(datasets, "RepetitionTime"),
        echo_time=first_positive(datasets, "EffectiveEchoTime", "EchoTime"),
        inversion_time=_inversion_time(datasets),
        scanning_sequence=_scanning_sequence(datasets),
        image_type=image_type(stating, private_items(root, frame)),
        scan_options=_scan_options(datasets),
        contrast_agent=has_contrast_agent(stating),
        content=content(stating, first_number(stating, "DiffusionBValue")),
        echo_number=_ordinal(stating, "EchoNumbers"),
        temporal_position=_ordinal(stating, "TemporalPositionIndex", "TemporalPositionIdentifier"),
    )


def _geometry(
    datasets: list[Dataset],
    keyword: str,
    count: int,
    usable: Callable[[tuple[float, ...]], bool] = lambda values: True,
) -> tuple[float, ...]:
    """The numbers of the first data set that has usable ones, or else of the first with any value.

    Raises:
        NotDicom: there is no value, or it is not ``count`` numbers.
    """
    sources = [dataset for dataset in datasets if _has_value(dataset, keyword)]
    if not sources:
        raise NotDicom(f"{keyword} is missing")
    values = numbers(next((d for d in sources if usable(numbers(d, keyword))), sources[0]), keyword)
    if len(values) != count:
        raise NotDicom(f"{keyword} does not hold {count} numbers")
    return values


def _has_value(dataset: Dataset, keyword: str) -> bool:
    return keyword in dataset and dataset.get_item(keyword).value not in (None, "", b"")


def _positive(values: tuple[float, ...]) -> bool:
    return min(values, default=0) > 0


def _orientation(cosines: tuple[float, ...]) -> tuple[Triple, Triple]:
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm([row, column], axis=1)
    # An error in each cosine changes a length by up to √3 times as much, and the dot product by
    # twice that. PS3.3 C.7.6.2.1.1 wants them orthonormal, but states no precision.
    rounding = np.sqrt(3.1) * 0.5 * 10.0 ** -_decimals(cosines)
    wrong_lengths = np.abs(lengths - 1).max() > max(TOLERANCE, rounding)
    if wrong_lengths or abs(row @ column) > max(TOLERANCE, 2 * rounding):
        raise NotDicom("ImageOrientationPatient is not two unit vectors at a right angle")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    (a, b, c), (d, e, f) = row.tolist(), column.tolist()
    return (a, b, c), (d, e, f)


def _decimals(values: tuple[float, ...]) -> int:
    """How many decimals the values have: 2, 3, or 4 for more."""
    return next((n for n in (2, 3) if np.allclose(values, np.round(values, n), 0, 1e-9)), 4)


def _side(root: Dataset, keyword: str) -> int:
    side = first_number([root], keyword)
    if side is None or not 1 <= side <= MAX_SIDE:
        raise NotDicom(f"{keyword} is missing or not within 1 to {MAX_SIDE}")
    return int(side)


def _required(root: Dataset, keyword: str) -> str:
    value = text(root, keyword)
    if not value:
        raise NotDicom(f"{keyword} is missing")
    if "\\" in value:
        raise NotDicom(f"{keyword} holds several values")
    return value


def _scanning_sequence(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """ScanningSequence, or its equivalent from the Enhanced MR attributes (PS3.3 C.8.13.4)."""
    if stated := words(datasets, "ScanningSequence"):
        return stated
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    pulse = "".join(words(datasets, "EchoPulseSequence"))
    planar = ("EP",) if words(datasets, "EchoPlanarPulseSequence") == ("YES",) else ()
    inverted = ("IR",) if words(datasets, "InversionRecovery") == ("YES",) else ()
    return (*echo.get(pulse, ()), *planar, *inverted)


def _inversion_time(datasets: Sequence[Dataset]) -> float | None:
    """In ms; 0 if what is stated is not positive, None if nothing is."""
    stated = first_number(datasets, *INVERSION) is not None
    return first_positive(datasets, *INVERSION) or (0.0 if stated else None)


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
