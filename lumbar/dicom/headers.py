"""Headers of strangers' MR files, read into the values that the spine's geometry works on."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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

from lumbar.errors import NotDicom
from lumbar.spine.slices import SliceHeader

MAX_SIDE = 4096  # rows or columns
MAX_FRAMES = 10_000
SPACING_MM, FARTHEST_MM = (0.02, 50.0), 10_000.0  # of any scanner; beyond it arithmetic runs away
TOLERANCE = 1e-3  # of the orientation's lengths and of its dot product

MULTI_FRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)


def read_header(path: Path) -> Dataset:
    """All elements before the pixels, which are not read. Raises NotDicom, with a reason, on anything else."""
    with refusing("the file cannot be read as DICOM; it may be damaged"):
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise NotDicom("the file is deflated, which is not read; send it uncompressed")
        with path.open("rb") as stream:
            return read_up_to_pixels(stream)


def read_up_to_pixels(stream: BinaryIO) -> Dataset:
    """As ``read_header``, unguarded; leaves the stream at the pixel element, or at its end where there is none."""
    return dcmread(stream, stop_before_pixels=True)


def slice_headers(ds: Dataset) -> list[SliceHeader]:
    """One for a single-frame MR instance, one a frame for Enhanced MR.

    Raises NotDicom when the instance is not an MR image or its geometry is missing or not sane: orientation unit and
    orthogonal within ``TOLERANCE`` (then made exactly so), spacing and place within what a scanner has, all finite.
    """
    with refusing("the header cannot be read; it may be damaged"):
        sop_class = text(ds, "SOPClassUID") or text(
            getattr(ds, "file_meta", Dataset()), "MediaStorageSOPClassUID"
        )
        if text(ds, "Modality") not in ("MR", "") or sop_class not in (
            MRImageStorage,
            *MULTI_FRAME,
        ):
            raise NotDicom("not an MR image")
        frames = frame_count(ds)
        if sop_class not in MULTI_FRAME:
            if frames != 1:
                raise NotDicom("a multi-frame image without functional groups")
            return [_slice_header([ds], sop_class, frame=None)]
        groups = ds.get("PerFrameFunctionalGroupsSequence")
        if not groups or len(groups) != frames:
            raise NotDicom("PerFrameFunctionalGroupsSequence does not fit NumberOfFrames")
        return [
            _slice_header(frame_places(ds, n), sop_class, frame=n) for n in range(1, frames + 1)
        ]


def frame_count(ds: Dataset) -> int:
    """NumberOfFrames, 1 where absent or empty. Raises NotDicom when outside 1 … ``MAX_FRAMES``."""
    frames = 1 if ds.get("NumberOfFrames") is None else int(ds.NumberOfFrames)
    if not 1 <= frames <= MAX_FRAMES:
        raise NotDicom(f"NumberOfFrames is not within 1 to {MAX_FRAMES}")
    return frames


def frame_places(ds: Dataset, frame: int | None) -> list[Dataset]:
    """Where a frame's attributes stand, in order of precedence: its own functional groups, the shared ones, the root.

    ``frame`` is 1-based; None in a single-frame instance, which has its root alone.
    """
    if frame is None:
        return [ds]
    own = ds.PerFrameFunctionalGroupsSequence[frame - 1]
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    macros = (
        element.value for group in (own, shared[0]) for element in group if element.VR == "SQ"
    )
    return [*(macro[0] for macro in macros if macro), ds]


def number(places: Sequence[Dataset], *keywords: str) -> float | None:
    """The first finite value that any place holds under any of the keywords; None where there is none."""
    for keyword in keywords:
        for place in places:
            values = numbers(place, keyword)
            if values:
                return values[0]
    return None


def numbers(place: Dataset, keyword: str) -> tuple[float, ...]:
    """The element's values; empty where absent, empty, not numbers or not finite."""
    try:
        values = tuple(float(v) for v in _listed(place.get(keyword)))
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return ()
    return values if all(map(math.isfinite, values)) else ()


def text(place: Dataset, keyword: str) -> str:
    """The element's value without its padding; empty where absent."""
    return str(place.get(keyword) or "").strip(" \0")


@contextmanager
def refusing(reason: str) -> Iterator[None]:
    """Damaged bytes make pydicom and the decoders raise nearly anything: all of it leaves as NotDicom.

    Warnings are dropped, for they quote the values they complain of.
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
        if error.errno is None:  # pydicom's own, about what the bytes mean
            raise NotDicom(reason) from None
        raise NotDicom(f"the file cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - any kind of error means damage here, and its text may quote values
        raise NotDicom(reason) from None


def _slice_header(places: list[Dataset], sop_class: str, frame: int | None) -> SliceHeader:
    root = places[-1]
    along_row, down_column = _orientation(_geometry(places, "ImageOrientationPatient", 6))
    x, y, z = _geometry(places, "ImagePositionPatient", 3)
    between_rows, between_columns = _geometry(places, "PixelSpacing", 2)
    if min(between_rows, between_columns) <= 0:
        raise NotDicom("PixelSpacing is not positive")
    if (
        min(between_rows, between_columns) < SPACING_MM[0]
        or max(between_rows, between_columns) > SPACING_MM[1]
    ):
        raise NotDicom(f"PixelSpacing is not within {SPACING_MM[0]} to {SPACING_MM[1]} mm")
    if max(map(abs, (x, y, z))) > FARTHEST_MM:
        raise NotDicom(f"ImagePositionPatient is farther than {FARTHEST_MM / 1000:.0f} m")
    return SliceHeader(
        study_instance_uid=_required(root, "StudyInstanceUID"),
        series_instance_uid=_required(root, "SeriesInstanceUID"),
        sop_class_uid=sop_class,
        sop_instance_uid=_required(root, "SOPInstanceUID"),
        frame=frame,
        frame_of_reference_uid=text(root, "FrameOfReferenceUID"),
        instance_number=int(number([root], "InstanceNumber") or 0),
        rows=_side(root, "Rows"),
        columns=_side(root, "Columns"),
        position=(x, y, z),
        orientation=(*along_row, *down_column),
        spacing=(between_rows, between_columns),
        thickness=number(places, "SliceThickness"),
        repetition_time=number(places, "RepetitionTime"),
        echo_time=number(places, "EffectiveEchoTime", "EchoTime"),
        inversion_time=number(places, "InversionTimes", "InversionTime"),
        scanning_sequence=_scanning_sequence(places),
        image_type=_words(places, "FrameType", "ImageType"),
        scan_options=_scan_options(places),
        contrast_agent=bool(
            text(root, "ContrastBolusAgent") or root.get("ContrastBolusAgentSequence")
        ),
    )


def _geometry(places: list[Dataset], keyword: str, count: int) -> tuple[float, ...]:
    holder = next((place for place in places if _filled(place, keyword)), None)
    if holder is None:
        raise NotDicom(f"{keyword} is missing")
    values = numbers(holder, keyword)
    if len(values) != count:
        raise NotDicom(f"{keyword} does not hold {count} numbers")
    return values


def _filled(place: Dataset, keyword: str) -> bool:
    return keyword in place and place.get_item(keyword).value not in (None, "", b"")


Triple = tuple[float, float, float]


def _orientation(cosines: tuple[float, ...]) -> tuple[Triple, Triple]:
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > TOLERANCE:
        raise NotDicom("ImageOrientationPatient is not two unit vectors at a right angle")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return (float(row[0]), float(row[1]), float(row[2])), (
        float(column[0]),
        float(column[1]),
        float(column[2]),
    )


def _side(root: Dataset, keyword: str) -> int:
    side = number([root], keyword)
    if side is None or not 1 <= side <= MAX_SIDE:
        raise NotDicom(f"{keyword} is missing or not within 1 to {MAX_SIDE}")
    return int(side)


def _required(root: Dataset, keyword: str) -> str:
    if value := text(root, keyword):
        return value
    raise NotDicom(f"{keyword} is missing")


def _words(places: Sequence[Dataset], *keywords: str) -> tuple[str, ...]:
    for keyword in keywords:
        for place in places:
            if words := tuple(str(v).strip().upper() for v in _listed(place.get(keyword))):
                return words
    return ()


def _scanning_sequence(places: Sequence[Dataset]) -> tuple[str, ...]:
    """As ScanningSequence says it; Enhanced MR says the same in other words (PS3.3 C.8.13.4)."""
    if words := _words(places, "ScanningSequence"):
        return words
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    pulse = "".join(_words(places, "EchoPulseSequence"))
    planar = ("EP",) if _words(places, "EchoPlanarPulseSequence") == ("YES",) else ()
    inverted = ("IR",) if _words(places, "InversionRecovery") == ("YES",) else ()
    return (*echo.get(pulse, ()), *planar, *inverted)


def _scan_options(places: Sequence[Dataset]) -> tuple[str, ...]:
    suppressed = _words(places, "SpectrallySelectedSuppression")
    return (*_words(places, "ScanOptions"), *(("FS",) if "FAT" in suppressed else ()))


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return (
        [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)
    )
