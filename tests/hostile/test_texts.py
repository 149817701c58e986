"""Hostile texts: stored unchanged, shown without control characters, and never as a formula."""

import csv
import io
import json
import re

import pytest

from tests.hostile.datasets import encoded, uid_of
from tests.hostile.texts import TEXTS, changes
from tests.system import wait_until

pytestmark = pytest.mark.slow

# All but the line feed.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
COLOURED = uid_of("a colour").decode()
FORMULA = re.compile(r"\s*[=+\-@]")


@pytest.fixture(scope="module", autouse=True)
def stored(monitored):
    """Sends all of them and waits until their studies have ended."""
    for name, text in TEXTS.items():
        assert monitored.store(encoded(uid_of(name), changes(text)), uid_of(name)) == 0x0000
    wait_until(
        lambda: set(monitored.system.states().values()) == {"not_analysable"},
        60,
        monitored.system.tail,
    )


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text_is_stored_and_shown_as_text(monitored, shown, name):
    study = f"{uid_of(name).decode()}.9"
    (row,) = [row for row in shown["json"] if row["study_instance_uid"] == study]
    (cells,) = [cells for cells in shown["csv"] if cells["study_instance_uid"] == study]
    for column in ("patient_name", "patient_identifier", "accession_number"):
        assert row[column] == TEXTS[name].strip(" ")
        assert not CONTROL.search(cells[column])
        assert not FORMULA.match(cells[column])


@pytest.mark.parametrize(
    "arguments",
    [
        *(("worklist", "--format", form) for form in ("table", "json", "csv")),
        ("findings",),
        ("study", f"{COLOURED}.9"),
    ],
    ids=" ".join,
)
def test_no_output_contains_a_control_character(monitored, arguments):
    completed = monitored.system.lumbar(*arguments)
    assert completed.returncode == 0, completed.stderr
    assert not CONTROL.search(completed.stdout)
    assert not CONTROL.search(completed.stderr)


def test_after_all_inputs_the_system_is_unharmed(monitored):
    monitored.require_unharmed()


@pytest.fixture(scope="module")
def shown(monitored):
    """The worklist's rows as JSON and as CSV."""
    as_json = monitored.system.lumbar("worklist", "--format", "json").stdout
    as_csv = monitored.system.lumbar("worklist", "--format", "csv").stdout
    return {
        "json": json.loads(as_json),
        "csv": list(csv.DictReader(io.StringIO(as_csv, newline=""))),
    }
