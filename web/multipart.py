"""Streaming parser of a form with files: fields in memory, files on disk, limits while it is read.

Files are numbered, never named by the client, and their content is not interpreted.
"""

from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lumbar.errors import Permanent

MAX_FILES = 2000
MAX_FIELDS = 8 * 2**10  # bytes of all fields together, and of one part's headers


class TooLarge(Permanent):
    """The upload is over a limit."""


class NotAForm(Permanent):
    """The body of the request is not a form with files."""


class FormReader:
    """Parses a multipart form chunk by chunk (RFC 7578).

    ``begin`` gets the fields that precede the first file, and returns the folder that the files are
    written to; what it raises passes through ``write``.
    """

    def __init__(
        self, content_type: str, max_bytes: int, begin: Callable[[Mapping[str, str]], Path]
    ) -> None:
        media_type, options = parse_options_header(content_type)
        if media_type != b"multipart/form-data" or not options.get(b"boundary"):
            raise NotAForm("files must be sent as a form: multipart/form-data")
        self.files = self.size = 0
        self._max_bytes = max_bytes
        self._begin = begin
        self._folder: Path | None = None
        self._fields: dict[str, bytes] = {}
        self._header = self._value = b""
        self._disposition = b""
        self._field: str | None = None
        self._file: FileIO | None = None
        self._complete = False
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

    def write(self, chunk: bytes) -> None:
        """Parses the next chunk.

        Raises:
            TooLarge: the form is over a limit.
            NotAForm: the bytes are not a multipart form.
            OSError: a file cannot be written.
        """
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise TooLarge(
                f"an upload may have at most {self._max_bytes // 2**20} MiB (LUMBAR_UPLOAD_MIB)"
            )
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise NotAForm("the form is damaged") from error

    def end(self) -> None:
        """Checks, after the last chunk, that the form is complete.

        Raises:
            NotAForm: the form was cut short, or has no file.
        """
        if not self._complete:
            raise NotAForm("the upload was cut short")
        if not self.files:
            raise NotAForm("no file was chosen")

    def close(self) -> None:
        """Closes the open file, if any; always to be called."""
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
        elif options[b"filename"]:  # empty where the user chose no file in an input
            self._next_file()

    def _next_file(self) -> None:
        if self._folder is None:
            self._folder = self._begin(
                {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}
            )
        self.files += 1
        if self.files > MAX_FILES:
            raise TooLarge(f"an upload may have at most {MAX_FILES} files; put them into a zip")
        self._file = FileIO(self._folder / f"{self.files:04}", "xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
        elif self._field is not None:
            if self._folder is not None:
                raise NotAForm("the form's fields must precede its files")
            self._fields[self._field] = self._fields.get(self._field, b"") + data[start:end]
            self._bounded(b"".join((*self._fields.values(), *map(str.encode, self._fields))))

    def _on_part_end(self) -> None:
        self.close()

    def _on_end(self) -> None:
        self._complete = True

    def _bounded(self, text: bytes) -> bytes:
        if len(text) > MAX_FIELDS:
            raise TooLarge("the form's fields are too long")
        return text
