"""How much the headers of one input may hold together, as all of them are kept at once."""

from collections.abc import Iterator

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from lumbar.errors import NotAnalysable

# A slice has some 300 elements and, with private ones, some 100 KiB. An element without a value
# takes about 400 bytes of memory.
MAX_ELEMENTS = 2_000_000
MAX_BYTES = 512 * 2**20  # of values


class HeaderBudget:
    """Counts the elements, those in sequences included, and the bytes of headers."""

    def __init__(self) -> None:
        self._elements, self._bytes = 0, 0

    def take(self, header: Dataset) -> None:
        """Counts one more header.

        Raises:
            NotAnalysable: all of them hold too much.
        """
        for element in _elements(header):
            self._elements += 1
            if isinstance(element.value, bytes | str):
                self._bytes += len(element.value)
        if self._elements > MAX_ELEMENTS or self._bytes > MAX_BYTES:
            raise NotAnalysable(
                "the files' headers hold too much together; choose fewer files, such as one study's"
            )


def _elements(header: Dataset) -> Iterator[DataElement | RawDataElement]:
    """Each element, without reading the value of any that has not been read."""
    for element in header.values():
        yield element
        if isinstance(element, DataElement) and element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)
