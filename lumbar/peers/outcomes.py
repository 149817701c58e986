"""What a peer's response means for an instance: stored, to be sent again, or refused for good.

The statuses are those of PS3.7 annex C and PS3.4 table B.2-1. STOW-RS takes its failure reasons
from the same list (PS3.18 table I.2-2), so DIMSE and DICOMweb share this module.
"""

from dataclasses import dataclass
from typing import ClassVar

from lumbar.errors import Permanent, Transient


@dataclass(frozen=True)
class InstanceReference:
    """One instance, as a peer is asked for it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class HeldReport:
    """A report of this product that a peer lists."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    instance_number: int | None = None


@dataclass(frozen=True)
class Sent:
    """The peer says that it has stored the instance.

    ``status`` is the response's, as ``"0000"`` (DIMSE) or ``"200"`` (HTTP); ``warning`` is one line
    or None. ``listed``: the response did not say enough, so the peer was asked, and lists it.
    """

    status: str
    warning: str | None = None
    listed: bool = False


class NotSent(Transient):
    """The instance is not known to be stored; sending it again may succeed.

    ``holds_destination``: the reason concerns every instance for this destination, not this one.
    """

    holds_destination: ClassVar[bool] = True


class Unreachable(NotSent):
    """No connection, no association, no response in time, or a connection that was lost."""


class NotConnected(Unreachable):
    """No connection: nothing listens there, or the network does not lead there."""


class Busy(NotSent):
    """The peer has no resources or no time at the moment."""


class NotAuthorised(NotSent):
    """0124, 401, 403, 407: an administrator must permit it. Raise an alert, and retry rarely."""


class Unintelligible(NotSent):
    """The response does not say what became of the instance, and the peer does not list it."""


class ProcessingFailed(NotSent):
    """The peer failed to process this instance (0110, Cxxx). Retry only a few times."""

    holds_destination = False


class FileUnavailable(NotSent):
    """Our own file cannot be read at the moment."""

    holds_destination = False


class TooLate(NotSent):
    """The time after which nothing may be sent came before anything was sent."""

    holds_destination = False


class Refused(Permanent):
    """The peer will not store this instance, however often it is sent."""


SUCCESS, DUPLICATE = 0x0000, 0x0111
_NOT_PERMITTED, _PROCESSING_FAILURE, _RESOURCE_LIMITATION = 0x0124, 0x0110, 0x0213
_WARNINGS = {
    0x0001: "stored, with a warning",
    0x0107: "stored, although some elements are not recognised",
    0x0116: "stored, although a value is out of range",
    0xB000: "stored, with some elements changed",
    0xB006: "stored, with some elements dropped",
    0xB007: "stored, although the data set does not match its SOP class",
}
# PS3.7 annex C.5: failures of the message or of the instance that sending again does not mend.
_FAILURES = (*range(0x0105, 0x0124), *range(0x0210, 0x0213))


def is_warning(status: int) -> bool:
    """Whether the status is of the class "warning" (PS3.7 C.3): the operation was performed."""
    return status in _WARNINGS or 0xB000 <= status <= 0xBFFF


def cannot_understand(status: int) -> bool:
    """Whether it is Cxxx; some peers answer so for an error that passes at once."""
    return 0xC000 <= status <= 0xCFFF


def interpret_status(status: int, peer: str) -> Sent:
    """The outcome of a C-STORE status or a STOW-RS failure reason.

    0111 (duplicate SOP instance) counts as stored, with a warning; where the peer can be asked, the
    caller does so instead.

    Raises:
        Busy: A7xx or 0213, out of resources.
        ProcessingFailed: 0110, Cxxx, or a status that is no outcome.
        NotAuthorised: 0124.
        Refused: any other failure.
    """
    code = f"{status:04X}"
    if status == SUCCESS:
        return Sent(code)
    if status == DUPLICATE:
        return Sent(code, "the peer reports that it was already stored, and cannot be asked")
    if is_warning(status):
        return Sent(code, _WARNINGS.get(status, "stored, with a warning"))
    if 0xA700 <= status <= 0xA7FF or status == _RESOURCE_LIMITATION:
        raise Busy(f"{peer} is out of resources (status {code}); try again later")
    if status == _PROCESSING_FAILURE or cannot_understand(status):
        raise ProcessingFailed(f"{peer} failed to store it (status {code}); its log says why")
    if status == _NOT_PERMITTED:
        raise NotAuthorised(f"{peer} does not permit it (status {code}); permit this sender there")
    if status in _FAILURES or 0xA000 <= status <= 0xAFFF:
        raise Refused(f"{peer} refused it (status {code}); its log says why")
    raise ProcessingFailed(
        f"{peer} answered with a status that is no outcome of storing (status {code}); "
        "its log says why"
    )
