"""What a peer's response means for an instance: delivered, to be retried, or refused for good.

The statuses are those of PS3.4 table B.2-1. STOW-RS takes its failure reasons from the same list
(PS3.18 table 10.5.3-1), so DIMSE and DICOMweb share this module.
"""

from dataclasses import dataclass

from lumbar.errors import Permanent, Transient


@dataclass(frozen=True)
class Delivered:
    """The peer has stored the instance.

    ``status`` is the response's, as ``"0000"`` (DIMSE) or ``"200"`` (HTTP); ``warning`` is one line
    or None.
    """

    status: str
    warning: str | None = None


class Unreachable(Transient):
    """No connection, no association, no response, or an association that was lost."""


class Busy(Transient):
    """The peer has no resources or no time at the moment."""


class ProcessingFailed(Transient):
    """0110: the peer failed to process it. Retry only a few times."""


class NotAuthorised(Transient):
    """0124, 401, 403: an administrator must permit it. Raise an alert, and retry rarely."""


class Refused(Permanent):
    """The peer will not store this instance, however often it is sent."""


_WARNINGS = {
    0xB000: "stored, with some elements changed",
    0xB006: "stored, with some elements dropped",
    0xB007: "stored, although the data set does not match its SOP class",
}
SUCCESS, DUPLICATE = 0x0000, 0x0111


def interpret_status(status: int, peer: str) -> Delivered:
    """The outcome of a C-STORE status or a STOW-RS failure reason.

    0111 (duplicate SOP instance) counts as delivered, with a warning; where the peer can be
    queried, the caller should confirm it.

    Raises:
        Busy: A7xx or 0213, out of resources.
        ProcessingFailed: 0110, processing failure.
        NotAuthorised: 0124, not authorised.
        Refused: any other failure.
    """
    code = f"{status:04X}"
    if status == SUCCESS:
        return Delivered(code)
    if status == DUPLICATE:
        return Delivered(code, "the peer reports that it was already stored")
    if 0xB000 <= status <= 0xBFFF:
        return Delivered(code, _WARNINGS.get(status, "stored, with a warning"))
    if 0xA700 <= status <= 0xA7FF or status == 0x0213:
        raise Busy(f"{peer} is out of resources (status {code}); try again later")
    if status == 0x0110:
        raise ProcessingFailed(f"{peer} failed to store it (status {code}); its log says why")
    if status == 0x0124:
        raise NotAuthorised(f"{peer} does not permit it (status {code}); permit this sender there")
    raise Refused(f"{peer} refused it (status {code}); its log says why")
