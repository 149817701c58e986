"""What a command printed, and whether a report conforms to DICOM."""

import csv
import io
import subprocess


def rows_of(completed):
    assert completed.returncode == 0, completed.stderr
    return list(csv.DictReader(io.StringIO(completed.stdout)))


def assert_one_line(completed, status, text):
    assert lines_before_last(completed, status, text) == []


def assert_last_line(completed, status, text):
    """The last line is the reason; the lines before it state how each series was used."""
    notes = lines_before_last(completed, status, text)
    assert notes
    assert all(line.startswith("series ") for line in notes), notes


def lines_before_last(completed, status, text):
    """The lines on standard error before the last, which is the reason."""
    assert completed.returncode == status, completed.stdout + completed.stderr
    assert "Traceback" not in completed.stderr
    *lines, last = completed.stderr.strip().splitlines()
    assert last.startswith("lumbar: ")
    assert text in last
    return lines


def validation_errors(file):
    validator = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
    return [
        line
        for line in (validator.stdout + validator.stderr).splitlines()
        if line.startswith("Error")
    ]
