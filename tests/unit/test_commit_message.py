"""The hook that refuses long subjects."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check-commit-message"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("Say why\n\nAnd more.\n# a comment of git's\n", None),
        ("x" * 72, None),
        ("x" * 73, "the subject has 73 characters, more than 72"),
        ("# nothing but a comment\n", "the subject, is empty"),
        ("Say why\nat length", "followed by an empty line"),
    ],
)
def test_a_subject_is_present_short_and_followed_by_an_empty_line(tmp_path, message, problem):
    file = tmp_path / "message"
    file.write_text(message)
    completed = subprocess.run([SCRIPT, file], capture_output=True, text=True)
    assert completed.returncode == (0 if problem is None else 1)
    assert (problem or "") in completed.stderr
