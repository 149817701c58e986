"""Holds a dataset while it arrives: in memory, or in an unnamed file once it is larger.

Memory stays bounded whatever is sent. An unnamed file needs no clean-up: it is gone when the
process is, however that ends.
"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

MAX_IN_MEMORY = 262144  # bytes of a dataset before it is moved to disk


class Spool(BytesIO):
    """One dataset; pynetdicom writes to it where it would have a BytesIO of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.size = 0
        # The first error of the disk. What arrives after it is discarded.
        self.failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Appends. An error of the disk goes to ``failure``, so that the association continues."""
        self.size += len(content)
        try:
            if self._file is None and self.size > MAX_IN_MEMORY:
                self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the spool
                self._file.write(self.getbuffer())
                self.truncate(0)
            if self._file is not None:
                return self._file.write(content)
            return super().write(content)
        except OSError as error:
            self.failure = self.failure or error
            return len(content)

    def rewound(self) -> IO[bytes]:
        """The dataset, positioned at its start."""
        stream = self._file or self
        stream.seek(0)
        return stream

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()
