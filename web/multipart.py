"""A form with files as it arrives: fields in memory, files on disk, all of it bounded while it is read.

A file is numbered, never named by its sender; nothing here looks at what it holds.
"""

from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lumbar.errors import Permanent

MAX_FILES = 2000
LONGEST_FIELDS = 8 * 2**10  # bytes of all fields, and of one part's headers


class TooLarge(Permanent):
    """More than may be uploaded."""


class NotAForm(Permanent):
    """The request's body is no form with files."""


class Incoming:
    """Takes a multipart form in, piece by piece.

    ``begin`` is given the fields that came before the first file, and returns the folder that the files are written to;
    it may raise what it likes.
    """

    def __init__(
        self, content_type: str, max_bytes: int, begin: Callable[[Mapping[str, str]], Path]
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise NotAForm("files are sent as a form: multipart/form-data")
        self.files = self.size = 0
        self._max_bytes = max_bytes
        self._begin = begin
        self._folder: Path | None = None
        self._fields: dict[str, bytes] = {}
        self._header = self._value = b""
        self._disposition = b""
        self._field: str | None = None
        self._file: FileIO | None = None
        self._whole = False
        callbacks = {
            name: getattr(self, f"_{name}")
            for name in (
                "on_part_begin",
                "on_header_field",
                "on_header_value",
                "on_header_end",
                "on_headers_finished",
                "on_part_data",
                "on_part_end",
                "on_end",
            )
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise NotAForm("the form's boundary is too long") from error

    def take(self, chunk: bytes) -> None:
        """The next piece. Raises TooLarge, NotAForm, OSError, and what ``begin`` raises."""
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise TooLarge(
                f"an upload may have {self._max_bytes // 2**20} MiB; an administrator may allow more"
            )
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise NotAForm("the form is damaged") from error

    def end(self) -> None:
        """Nothing more comes. Raises NotAForm where the form was cut short or has no file."""
        if not self._whole:
            raise NotAForm("the upload was cut short")
        if not self.files:
            raise NotAForm("no file was chosen")

    def close(self) -> None:
        """Whatever happened."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_part_begin(self) -> None:
        self._header = self._value = self._disposition = b""
        self._field = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = self._bounded(self._header + data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        elif options[b"filename"]:  # else an input for files in which none was chosen
            self._next_file()

    def _next_file(self) -> None:
        if self._folder is None:
            self._folder = self._begin(
                {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}
            )
        self.files += 1
        if self.files > MAX_FILES:
            raise TooLarge(f"an upload may have {MAX_FILES} files; put them into a zip")
        self._file = FileIO(self._folder / f"{self.files:04}", "xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
        elif self._field is not None:
            if self._folder is not None:
                raise NotAForm("the form's fields come before its files")
            self._fields[self._field] = self._fields.get(self._field, b"") + data[start:end]
            self._bounded(b"".join((*self._fields.values(), *map(str.encode, self._fields))))

    def _on_part_end(self) -> None:
        self.close()

    def _on_end(self) -> None:
        self._whole = True

    def _bounded(self, held: bytes) -> bytes:
        if len(held) > LONGEST_FIELDS:
            raise TooLarge("the form's fields are too long")
        return held
