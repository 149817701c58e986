"""Finds DICOM instances in a file, a folder or a zip."""

import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from lumbar.dicom.headers import read_header, slice_headers
from lumbar.dicom.missing_elements import infer_class, infer_uids
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.spine.slices import SliceHeader

MAX_FILES = 20_000
MAX_BYTES = 4 * 2**30  # of a zip's unpacked contents
TOO_LARGE = f"the zip unpacks to more than {MAX_BYTES // 2**30} GiB"
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
CHUNK = 2**20


@dataclass(frozen=True)
class MRInstance:
    """An MR instance: its file, its header without pixels, and one slice header per frame.

    ``made_up``: the file lacks a UID, and the one in ``header`` exists nowhere else.
    """

    path: Path
    header: Dataset
    slices: tuple[SliceHeader, ...]
    made_up: bool = False

    def __post_init__(self) -> None:
        """Names the file in the slice headers, whoever read them."""
        slices = tuple(replace(header, file=str(self.path)) for header in self.slices)
        object.__setattr__(self, "slices", slices)


@dataclass(frozen=True)
class RejectedFile:
    """A file that was not used. ``path`` may contain a patient's name; ``reason`` never does."""

    path: Path
    reason: str


def find_instances(
    path: Path, scratch: Path, check: Callable[[Path], object] = lambda file: None
) -> tuple[list[MRInstance], list[RejectedFile]]:
    """Every MR instance in a file, a folder with its sub-folders, or a zip, by file name.

    What headers lack is inferred from the rest of the input where that is possible
    (``lumbar.dicom.missing_elements``).

    ``scratch``: an empty folder to unpack a zip into; the caller removes it once the pixels have
    been read. The files of a zip are numbered, never named after its members. ``check`` is called
    with each file first, and raises NotDicom for one that must not even be opened in this process.
    Links that lead out of the folder are not followed.

    Raises:
        NotAnalysable: there is no MR instance that can be read.
    """
    headers: dict[Path, Dataset] = {}
    instances: list[MRInstance] = []
    rejected: list[RejectedFile] = []
    for file in files_in(path, scratch):
        try:
            check(file)
            header = read_header(file)
            infer_class(header)
            headers[file] = header
        except NotDicom as error:
            rejected.append(RejectedFile(file, str(error)))
    made_up = infer_uids(headers)
    for file, header in headers.items():
        try:
            slices = tuple(slice_headers(header))
            instances.append(MRInstance(file, header, slices, file in made_up))
        except NotDicom as error:
            rejected.append(RejectedFile(file, str(error)))
    if not instances:
        reasons = Counter(r.reason for r in rejected if r.reason != "not a DICOM file")
        if not reasons:
            raise NotAnalysable("the input holds no DICOM files")
        raise NotAnalysable(
            f"the input holds no MR slice that can be read: {reasons.most_common(1)[0][0]}"
        )
    return instances, rejected


def files_in(path: Path, scratch: Path) -> list[Path]:
    """Every file of the input, whatever it contains; arguments as for ``find_instances``.

    Raises:
        NotAnalysable: the input is neither a file nor a folder, is too large, or cannot be opened
            or unpacked.
    """
    if path.is_dir():
        return _files_below(path)
    if path.exists() and not path.is_file():
        # Reading a pipe could block for ever.
        raise NotAnalysable("the input is neither a file nor a folder")
    return _unpack(path, scratch) if is_zip(path) else [path]


def is_zip(path: Path) -> bool:
    """Whether the file begins as a zip does; a folder does not.

    Raises:
        NotAnalysable: it cannot be opened.
    """
    if path.exists() and not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) in ZIP_STARTS
    except OSError as error:
        raise NotAnalysable(f"the input cannot be opened: {error.strerror}") from None


def _files_below(folder: Path) -> list[Path]:
    root = folder.resolve()
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.resolve().is_relative_to(root)
    )
    if len(files) > MAX_FILES:
        raise NotAnalysable(f"the folder holds more than {MAX_FILES} files")
    return files


def _unpack(path: Path, scratch: Path) -> list[Path]:
    files: list[Path] = []
    remaining = MAX_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename
            )
            if len(members) > MAX_FILES:
                raise NotAnalysable(f"the zip holds more than {MAX_FILES} files")
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise NotAnalysable(TOO_LARGE)
            for ordinal, member in enumerate(members, 1):
                files.append(scratch / f"{ordinal:06}.dcm")
                remaining -= _copy(archive, member, files[-1], remaining)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        reason = "it is encrypted" if "encrypted" in str(error) else "it is damaged"
        raise NotAnalysable(f"the zip cannot be unpacked: {reason}") from None
    return files


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int) -> int:
    """Unpacks a member and returns its size, counted here: the size a zip declares may be false.

    Raises:
        NotAnalysable: it is larger than ``limit`` bytes.
    """
    written = 0
    with archive.open(member) as source, target.open("wb") as out:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > limit:
                raise NotAnalysable(TOO_LARGE)
            out.write(chunk)
    return written
