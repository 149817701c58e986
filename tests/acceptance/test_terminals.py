"""Whatever the terminal can show, and wherever the output goes, a command does not fail of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from db.ingest import ingest
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.site_with_studies import open_site

pytestmark = pytest.mark.slow

NAME = "Małgorzata–Åsa^王🦴"
COMMAND = [sys.executable, "-m", "commands"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A site with a study of a patient whose name no 8-bit encoding can show."""
    home = tmp_path_factory.mktemp("home")
    site = open_site(home)
    image = make_slice(PatientName=NAME, SpecificCharacterSet="ISO_IR 192")
    ingest(site.database, site.store, arrival(image))
    site.database.close()
    return home


def run(home, *arguments, stdout=subprocess.PIPE, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"}
    return subprocess.run(
        [*COMMAND, *arguments],
        env=inherited | {"LUMBAR_HOME": str(home), "LUMBAR_DESTINATIONS": "{}"} | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
    )


TERMINALS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "narrow": {"COLUMNS": "1", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
    "no width": {"COLUMNS": "0", "TERM": "dumb"},
}


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("command", [["worklist"], ["study", f"{ROOT}.1"], ["status"]])
def test_a_table_is_shown_on_any_terminal(home, command, terminal):
    done = run(home, *command, **TERMINALS[terminal])
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) > 100


@pytest.mark.parametrize("terminal", ["latin-1", "ascii", "C"])
def test_json_holds_every_character_in_any_encoding(home, terminal):
    done = run(home, "worklist", "--format", "json", **TERMINALS[terminal])
    assert json.loads(done.stdout)[0]["patient_name"] == NAME


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_full_disk_behind_the_output_is_one_line(home, form):
    with Path("/dev/full").open("wb") as full:
        done = run(home, "worklist", "--format", form, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"lumbar: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_reader_that_has_seen_enough_is_no_error(home, form):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(home, "worklist", "--format", form, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
