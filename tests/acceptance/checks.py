"""What a command printed, and whether a report conforms to DICOM."""

import csv
import io
import subprocess


def rows_of(done):
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def assert_one_line(done, status, said):
    assert said_before(done, status, said) == []


def assert_last_line(done, status, said):
    """The reason comes last, after what became of each series."""
    told = said_before(done, status, said)
    assert told
    assert all(line.startswith("series ") for line in told), told


def said_before(done, status, said):
    """The lines on standard error before the last, which holds the reason."""
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    *lines, last = done.stderr.strip().splitlines()
    assert last.startswith("lumbar: ")
    assert said in last
    return lines


def validation_errors(file):
    said = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
