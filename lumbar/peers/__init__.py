"""Going out: results and files to other systems, by DIMSE or DICOMweb with the same meaning.

Importing this package alone imports neither pynetdicom nor requests: the settings need only
``destinations``.
"""

from lumbar.peers.destinations import (
    Destination,
    DicomwebDestination,
    DimseDestination,
    parse_destination,
)
from lumbar.peers.outcomes import Delivered

__all__ = [
    "Delivered",
    "Destination",
    "DicomwebDestination",
    "DimseDestination",
    "parse_destination",
    "send",
    "test",
]


def send(destination: Destination, content: bytes, *, timeout_s: float = 30) -> Delivered:
    """Deliver one Part-10 file.

    Raises Transient (Unreachable, Busy, ProcessingFailed, NotAuthorised) or Permanent (Refused); see
    ``lumbar.peers.outcomes``.
    """
    if isinstance(destination, DimseDestination):
        from lumbar.peers import dimse

        return dimse.send(destination, content, timeout_s=timeout_s)
    from lumbar.peers import dicomweb

    return dicomweb.send(destination, content, timeout_s=timeout_s)


def test(destination: Destination, *, timeout_s: float = 10) -> None:  # noqa: PT028 - no test of ours, one of the peer
    """Whether the destination answers: C-ECHO, or a query for one study. Raises as ``send`` does."""
    if isinstance(destination, DimseDestination):
        from lumbar.peers import dimse

        dimse.echo(destination, timeout_s=timeout_s)
    else:
        from lumbar.peers import dicomweb

        dicomweb.probe(destination, timeout_s=timeout_s)
