"""What the services share: the spine, DICOM, networks, reports, peers and phantoms."""

from importlib.metadata import version

VERSION = version("lumbar-triage")
