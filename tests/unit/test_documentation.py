"""The documentation names what there is."""

from pathlib import Path

import pytest
from typer.main import get_command

from commands.app import app
from db.models import JobState, StudyState, Table
from lumbar.settings import Settings

DOCS = Path(__file__).parent.parent.parent / "docs"
README = (DOCS.parent / "README.md").read_text()
CHANGELOG = (DOCS.parent / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_operations_with_its_meaning(name):
    meaning = Settings.model_fields[name].description
    assert f"| `LUMBAR_{name.upper()}` |" in (DOCS / "operations.md").read_text()
    assert meaning
    assert f"| {meaning} |" in (DOCS / "operations.md").read_text()


@pytest.mark.parametrize("command", get_command(app).commands)
def test_every_command_is_named_in_the_changelog(command):
    assert command in CHANGELOG


@pytest.mark.parametrize("state", StudyState)
def test_every_state_of_a_study_stands_in_architecture(state):
    assert state.value in (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("state", JobState)
def test_every_state_of_a_job_stands_in_architecture(state):
    assert state.value in (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("table", Table.metadata.tables)
def test_every_table_stands_in_architecture(table):
    assert table in (DOCS / "architecture.md").read_text()


def commands_of(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(("name", "command"), list(commands_of(get_command(app))))
def test_every_command_helps_with_an_example(name, command):
    assert command.help
    assert command.epilog.startswith("Example: ")
    assert f"lumbar {name}" in command.epilog
