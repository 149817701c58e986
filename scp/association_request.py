"""Association requests (A-ASSOCIATE-RQ, PS3.8 9.3.2), also those that are not as they should be.

Devices send them with AE titles that are blank or padded with NUL, with items that no standard
defines, or with one presentation context among many that proposes nothing. What need not be
understood is ignored, as PS3.8 9.3.1 demands of items that are not recognised; a presentation
context that cannot be understood costs only itself. What was odd is listed, for the log.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct, unpack_from

from lumbar.setting_types import AE_TITLE

NO_LIMIT = 0  # of the length of a PDU (PS3.8 D.1)

_FIXED = 74  # bytes before the first item
_CALLED, _CALLING, _ECHOED = slice(10, 26), slice(26, 42), slice(10, 74)
_VERSION = 6
_ITEM = Struct(">BxH")  # type, length
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_CONTEXT_HEAD = 4  # bytes of a presentation context before its sub-items
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x55
# Operations window, roles, both extended negotiations, user identity (PS3.7 D.3.3): whatever they
# hold, the defaults apply, so they are not looked into.
_NOT_NEGOTIATED = (0x53, 0x54, 0x56, 0x57, 0x58)

_PADDING = b" \0"
_UID = re.compile(rb"[0-9.]{1,64}")
_LENGTH_SIZE = 4  # bytes of the Maximum Length
_MAX_VERSION_NAME = 16
_MAX_ODDITIES = 16  # of one request


@dataclass(frozen=True)
class ProposedContext:
    """A presentation context as proposed. What is no UID is left out."""

    number: int  # odd, if the peer is right
    abstract_syntax: str  # empty where there is none
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class AssociationRequest:
    """An association request that could be decoded."""

    version: int  # a bit for each protocol version
    echoed: bytes  # what an acceptance repeats as it came: the AE titles, and a reserved field
    called_ae_title: str
    calling_ae_title: str  # empty where it is blank, or not an AE title
    application_context: str  # empty where there is none
    contexts: tuple[ProposedContext, ...]  # each number once
    maximum_length: int  # of the PDUs that the peer receives; NO_LIMIT: any
    oddities: tuple[str, ...]  # what is not as it should be and was ignored; never values


def decode(content: bytes) -> AssociationRequest:
    """Decodes an A-ASSOCIATE-RQ.

    Raises:
        ValueError: it is cut short.
    """
    if len(content) < _FIXED:
        raise ValueError("association request cannot be decoded")
    reading = _Reading()
    called = reading.called_ae_title(content[_CALLED])
    calling = reading.calling_ae_title(content[_CALLING])
    for kind, value in _items(content[_FIXED:]):
        reading.take(kind, value)
    reading.end()
    return AssociationRequest(
        version=unpack_from(">H", content, _VERSION)[0],
        echoed=content[_ECHOED],
        called_ae_title=called,
        calling_ae_title=calling,
        application_context=reading.application_context,
        contexts=tuple(reading.contexts.values()),
        maximum_length=reading.maximum_length(),
        oddities=tuple(reading.oddities),
    )


def printable_calling_ae_title(content: bytes) -> str:
    """The calling AE title of a request, decodable or not, for the log: at most 64 characters.

    Bytes that no AE title may hold are written ``\\x00``, so that it looks like no other title.
    """
    text = content[_CALLING].strip(_PADDING).decode("latin-1")
    return "".join(c if AE_TITLE.fullmatch(f"-{c}") else f"\\x{ord(c):02x}" for c in text)


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The items, or sub-items, one after the other: type and value.

    Bytes behind the last that are fewer than an item's head are ignored.

    Raises:
        ValueError: an item is longer than what is left.
    """
    at = 0
    while at + _ITEM.size <= len(content):
        kind, length = _ITEM.unpack_from(content, at)
        at += _ITEM.size
        if at + length > len(content):
            raise ValueError("association request cannot be decoded")
        yield kind, content[at : at + length]
        at += length


@dataclass
class _Reading:
    """What has been read of a request's items."""

    application_context: str = ""
    contexts: dict[int, ProposedContext] = field(default_factory=dict)
    user: dict[int, bytes] = field(default_factory=dict)  # the first sub-item of each type
    oddities: dict[str, None] = field(default_factory=dict)  # in order, each once

    def note(self, oddity: str) -> None:
        if len(self.oddities) < _MAX_ODDITIES:
            self.oddities[oddity] = None

    def called_ae_title(self, field: bytes) -> str:
        """Without its padding, and without what follows the NUL that ends a text in C."""
        title = field.strip(_PADDING).partition(b"\0")[0]
        if b"\0" in field:
            self.note("called AE title with NUL")
        return title.strip(b" ").decode("ascii", "replace")

    def calling_ae_title(self, field: bytes) -> str:
        """Without its padding; empty where it is not an AE title (PS3.5 6.2)."""
        title = field.strip(_PADDING).decode("latin-1")
        if not AE_TITLE.fullmatch(title):
            self.note("calling AE title blank or not valid")
            return ""
        if b"\0" in field:
            self.note("calling AE title with NUL")
        return title

    def take(self, kind: int, value: bytes) -> None:
        """Reads an item."""
        if kind == _APPLICATION_CONTEXT:
            name = self._name(value).decode("latin-1")
            self.application_context = self.application_context or name
        elif kind == _PRESENTATION_CONTEXT:
            self._take_context(value)
        elif kind == _USER_INFORMATION:
            self._take_user_information(value)
        else:
            self.note(f"unknown item {kind:02X}")

    def _take_context(self, value: bytes) -> None:
        """A presentation context (PS3.8 9.3.2.2)."""
        if len(value) < _CONTEXT_HEAD:
            self.note("presentation context without a number")
            return
        number, abstract_syntax = value[0], ""
        transfer_syntaxes: list[str] = []
        for kind, name in self._sub_items(value[_CONTEXT_HEAD:], "presentation context"):
            if kind == _ABSTRACT_SYNTAX:
                abstract_syntax = abstract_syntax or self._uid(name)
            elif kind == _TRANSFER_SYNTAX:
                transfer_syntaxes += filter(None, [self._uid(name)])
            else:
                self.note(f"unknown sub-item {kind:02X}")
        if not abstract_syntax:
            self.note("presentation context without an abstract syntax")
        if not transfer_syntaxes:
            self.note("presentation context without a transfer syntax")
        if number % 2 == 0:
            self.note("even presentation context number")
        if number in self.contexts:
            self.note("repeated presentation context number")
        self.contexts.setdefault(
            number, ProposedContext(number, abstract_syntax, tuple(transfer_syntaxes))
        )

    def _take_user_information(self, value: bytes) -> None:
        """User information (PS3.8 9.3.2.3, PS3.7 D.3.3)."""
        for kind, content in self._sub_items(value, "user information"):
            self.user.setdefault(kind, content)

    def end(self) -> None:
        """Notes what is odd, once all items have been read."""
        known = (_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS, _IMPLEMENTATION_VERSION, *_NOT_NEGOTIATED)
        if not self.application_context:
            self.note("no application context")
        for kind in sorted(self.user.keys() - known):
            self.note(f"unknown sub-item {kind:02X}")
        if len(self.user.get(_MAXIMUM_LENGTH, b"")) != _LENGTH_SIZE:
            self.note("no maximum length")
        if not self.user.get(_IMPLEMENTATION_CLASS):
            self.note("no implementation class UID")
        if not 1 <= len(self.user.get(_IMPLEMENTATION_VERSION, b"1")) <= _MAX_VERSION_NAME:
            self.note("implementation version name empty or too long")

    def maximum_length(self) -> int:
        """The Maximum Length; none is no limit."""
        length = self.user.get(_MAXIMUM_LENGTH, b"")
        return int.from_bytes(length) if len(length) == _LENGTH_SIZE else NO_LIMIT

    def _sub_items(self, content: bytes, name: str) -> Iterator[tuple[int, bytes]]:
        """The sub-items as far as they are whole."""
        try:
            yield from _items(content)
        except ValueError:
            self.note(f"{name} cut short")

    def _uid(self, value: bytes) -> str:
        """The UID; empty where it is none."""
        name = self._name(value)
        if not _UID.fullmatch(name):
            self.note("name that is not a UID")
            return ""
        return name.decode("ascii")

    def _name(self, value: bytes) -> bytes:
        """Without padding, which a UID does not have here (PS3.8 annex F)."""
        name = value.strip(_PADDING)
        if name != value:
            self.note("UID with padding")
        return name
