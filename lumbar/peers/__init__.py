"""Delivering results and files to other systems, by DIMSE or DICOMweb with the same outcomes.

Importing this package alone imports neither pydicom nor requests: the settings need only
``destinations``, and a ``Peer``'s operations run in a process of their own.
"""

from lumbar.peers.destinations import (
    Destination,
    DicomwebDestination,
    DimseDestination,
    Probe,
    parse_destination,
)
from lumbar.peers.outcomes import HeldReport, InstanceReference, NotSent, Refused, Sent
from lumbar.peers.peer import Peer

__all__ = [
    "Destination",
    "DicomwebDestination",
    "DimseDestination",
    "HeldReport",
    "InstanceReference",
    "NotSent",
    "Peer",
    "Probe",
    "Refused",
    "Sent",
    "parse_destination",
]
