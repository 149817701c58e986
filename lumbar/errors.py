"""Every error this project raises on purpose, by whether trying again can help.

::

    LumbarError               one line for a person: what is wrong, what to do
    ├── Transient             the same again may succeed later: a database away, a PACS down, a disk full
    └── Permanent             the same again will fail the same way
        ├── NotFound         what was asked for by its name or number does not exist
        ├── NotDicom          the bytes are not a DICOM instance we can keep or read
        ├── NotAnalysable     a valid study that cannot be analysed; the reason goes to the reader (exit status 3)
        └── WrongSetting      a setting's value is wrong; the start stops (exit status 2)
"""


class LumbarError(Exception):
    """A failure with one line for a person. Never carries patient data."""


class Transient(LumbarError):
    """Trying the same again can help."""


class Permanent(LumbarError):
    """Trying the same again cannot help."""


class NotFound(Permanent):
    """Nothing has the name or the number that was asked for."""


class NotDicom(Permanent):
    """Not a DICOM instance that can be kept or read."""


class NotAnalysable(Permanent):
    """The study cannot be analysed, for a reason its reader should know; ``notes`` say what else is known of it."""

    def __init__(self, reason: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.notes = notes


class WrongSetting(Permanent):
    """A setting has a value that cannot be used."""
