"""The files that are sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from lumbar.errors import Permanent
from lumbar.peers.outcomes import FileUnavailable, InstanceReference


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The open file.

    Raises:
        FileUnavailable: it cannot be read, now or in the ``with`` block.
        Permanent: it turns out not to be DICOM.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError:
        raise FileUnavailable(f"{path.name} cannot be read; check the disk") from None
    except (InvalidDicomError, AttributeError, KeyError, EOFError):
        raise Permanent(f"{path.name} is not a readable DICOM file") from None


def read_reference(path: Path) -> InstanceReference:
    """The UIDs that the file's data set states; see ``reading``."""
    keywords = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    with reading(path) as file:
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(keywords))
        return InstanceReference(*(str(header[keyword].value) for keyword in keywords))
