"""DICOM files in: headers to values, pixels decoded within limits, folders and zips walked."""

import logging

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote patients' values
