"""DICOM input: reads headers, decodes pixels within limits, and finds files in folders and zips."""

import logging

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote patients' values
