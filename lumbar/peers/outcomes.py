"""What a peer's answer means for what was sent: delivered, worth trying again, or never (PS3.4 table B.2-1).

STOW-RS gives its failure reasons from the same list (PS3.18 table 10.5.3-1), so both ways out share this one.
"""

from dataclasses import dataclass

from lumbar.errors import Permanent, Transient


@dataclass(frozen=True)
class Delivered:
    """The peer holds the instance. ``status``: ``"0000"`` or ``"200"``; ``warning``: one line, or None."""

    status: str
    warning: str | None = None


class Unreachable(Transient):
    """No connection, no association, no answer, or one that broke off."""


class Busy(Transient):
    """The peer has no room or no time at the moment."""


class ProcessingFailed(Transient):
    """0110: the peer failed at it. Worth a few tries, no more."""


class NotAuthorised(Transient):
    """0124, 401, 403: somebody has to allow it. Alert, and try seldom."""


class Refused(Permanent):
    """The peer will not take this, however often it comes."""


_WARNINGS = {
    0xB000: "stored, with some elements changed",
    0xB006: "stored, with some elements dropped",
    0xB007: "stored, though the data set does not match its SOP class",
}
SUCCESS, DUPLICATE = 0x0000, 0x0111


def judge(status: int, peer: str) -> Delivered:
    """The outcome of a C-STORE status or a STOW-RS failure reason.

    0111 (stored already) comes back as delivered with a warning; who can ask the peer whether that is so, should.

    Raises Busy, ProcessingFailed, NotAuthorised or Refused.
    """
    code = f"{status:04X}"
    if status == SUCCESS:
        return Delivered(code)
    if status == DUPLICATE:
        return Delivered(code, "the peer says that it was stored already")
    if status in _WARNINGS or 0xB000 <= status <= 0xBFFF:
        return Delivered(code, _WARNINGS.get(status, "stored, with a warning"))
    if 0xA700 <= status <= 0xA7FF or status == 0x0213:
        raise Busy(f"{peer} is out of resources (status {code}); try again later")
    if status == 0x0110:
        raise ProcessingFailed(f"{peer} failed to store it (status {code}); its log says why")
    if status == 0x0124:
        raise NotAuthorised(f"{peer} does not allow it (status {code}); permit this sender there")
    raise Refused(f"{peer} refused it (status {code}); its log says why")
