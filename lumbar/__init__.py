"""What the services share: spine geometry, DICOM, networks, reports, peers and phantoms."""

from importlib.metadata import version

VERSION = version("lumbar-triage")
