"""DICOM input: headers become values, pixels are decoded within limits, folders and zips walked."""

import logging

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote patients' values
