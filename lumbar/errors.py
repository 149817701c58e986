"""The errors this project raises on purpose, grouped by whether a retry can help.

::

    LumbarError               one line for the user: what is wrong and what to do
    ├── Transient             a retry may succeed: database unavailable, PACS down, disk full
    └── Permanent             a retry will fail in the same way
        ├── NotFound          nothing has the requested name or number
        ├── NotDicom          the bytes are not a DICOM instance we can store or read
        │   └── Unreadable    … this time; the disk or a limit prevented it
        ├── NotAnalysable     a valid study that cannot be analysed, and why (exit status 3)
        └── WrongSetting      a setting has an invalid value; start-up stops (exit status 2)
"""


class LumbarError(Exception):
    """A failure described in one line for the user. Never contains patient data."""


class Transient(LumbarError):
    """A retry may succeed."""


class Permanent(LumbarError):
    """A retry cannot succeed."""


class NotFound(Permanent):
    """Nothing has the requested name or number."""


class NotDicom(Permanent):
    """Not a DICOM instance that can be stored or read."""


class Unreadable(NotDicom):
    """The disk, or the limits of a sandbox, prevented reading: it may succeed another time."""


class NotAnalysable(Permanent):
    """The study cannot be analysed; its reader is shown the reason.

    ``notes`` state what else is known about the study.
    """

    def __init__(self, reason: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.notes = notes


class WrongSetting(Permanent):
    """A setting has an invalid value."""
