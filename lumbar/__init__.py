"""The code that the services share: geometry, DICOM, networks, reports, peers, phantoms."""

from importlib.metadata import version

VERSION = version("lumbar-triage")
