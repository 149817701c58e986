"""Delivering results and files to other systems, by DIMSE or DICOMweb with the same outcomes.

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
    """Delivers one Part-10 file, by C-STORE or STOW-RS; see ``lumbar.peers.outcomes``.

    Raises:
        Unreachable: no connection, no association, or no response in time.
        Busy: the peer has no resources at the moment.
        ProcessingFailed: the peer could not store it.
        NotAuthorised: the peer does not permit it.
        Refused: the peer does not accept this instance.
    """
    if isinstance(destination, DimseDestination):
        from lumbar.peers import dimse

        return dimse.send(destination, content, timeout_s=timeout_s)
    from lumbar.peers import dicomweb

    return dicomweb.send(destination, content, timeout_s=timeout_s)


def test(destination: Destination, *, timeout_s: float = 10) -> None:  # noqa: PT028 - not a test of ours
    """Tests whether the destination responds: by C-ECHO, or by a query for one study.

    Raises:
        Unreachable: no connection, no association, or no response in time.
        Busy: the server cannot respond at the moment.
        NotAuthorised: the server does not permit it.
        Refused: the peer does not offer verification, or the URL is not a DICOMweb root.
    """
    if isinstance(destination, DimseDestination):
        from lumbar.peers import dimse

        dimse.echo(destination, timeout_s=timeout_s)
    else:
        from lumbar.peers import dicomweb

        dicomweb.probe(destination, timeout_s=timeout_s)
