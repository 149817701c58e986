"""Finds DICOM instances in a file, a folder or a zip."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from lumbar.dicom.archive import MAX_FILES, is_zip, unpack
from lumbar.dicom.header_budget import HeaderBudget
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.dicom.missing_elements import infer_class, infer_uids
from lumbar.errors import NotAnalysable, NotDicom
from lumbar.spine.slices import SliceHeader


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
    path: Path,
    scratch: Path,
    check: Callable[[Path], object] = lambda file: None,
    require_room: Callable[[], None] = lambda: None,
) -> tuple[list[MRInstance], list[RejectedFile]]:
    """Every MR instance in a file, a folder with its sub-folders, or a zip, by file name.

    What headers lack is inferred from the rest of the input where that is possible
    (``lumbar.dicom.missing_elements``).

    ``scratch``: an empty folder to unpack a zip into; the caller removes it once the pixels have
    been read. The files of a zip are numbered, never named after its members. ``check`` is called
    with each file first, and raises NotDicom for one that must not even be opened in this process.
    ``require_room``: see ``lumbar.dicom.archive.unpack``. Links that lead out of the folder are not
    followed.

    Raises:
        NotAnalysable: there is no MR instance that can be read, or headers hold too much together.
    """
    headers: dict[Path, Dataset] = {}
    instances: list[MRInstance] = []
    rejected: list[RejectedFile] = []
    budget = HeaderBudget()
    for file in files_in(path, scratch, require_room):
        try:
            check(file)
            header = read_header(file)
            budget.take(header)
            infer_class(header)
            headers[file] = header
        except NotDicom as error:
            rejected.append(RejectedFile(file, str(error)))
    made_up = infer_uids(headers)
    budget = HeaderBudget()  # again, as sequences are read only now
    for file, header in headers.items():
        try:
            slices = tuple(slice_headers(header))
            budget.take(header)
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


def files_in(path: Path, scratch: Path, require_room: Callable[[], None]) -> list[Path]:
    """Every file of the input, whatever it contains; arguments as for ``find_instances``.

    Raises:
        NotAnalysable: the input is neither a file nor a folder, is too large, or cannot be opened
            or unpacked.
        OSError: its disk, or the scratch folder's, fails.
    """
    if path.is_dir():
        return _files_below(path)
    if path.exists() and not path.is_file():
        # Reading a pipe could block for ever.
        raise NotAnalysable("the input is neither a file nor a folder")
    return unpack(path, scratch, require_room) if is_zip(path) else [path]


def _files_below(folder: Path) -> list[Path]:
    root = folder.resolve()
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.resolve().is_relative_to(root)
    )
    if len(files) > MAX_FILES:
        raise NotAnalysable(f"the folder holds more than {MAX_FILES} files")
    return files
