"""The documentation covers every command, setting, state and table."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from commands.app import app
from db.models import JobState, StudyState, Table
from lumbar.settings import Settings

DOCS = Path(__file__).parent.parent.parent / "docs"
CHANGELOG = (DOCS.parent / "CHANGELOG.md").read_text()
PAGES = sorted((*DOCS.parent.glob("*.md"), *DOCS.glob("*.md")))
CODE = re.compile(r"^```\w*\n([^`]+)^```|`([^`]+)`|^    (.+)$", re.MULTILINE)
CALL = re.compile(r"(?<![\w./-])lumbar((?: (?!lumbar )[a-z][a-z-]*)+)(?![\w-])")
LIST = re.compile(r"`lumbar`: ([^.]+)\.")


def commands_of(group, path=()) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands_of(get_command(app)))


def calls(code: str) -> list[list[str]]:
    """The words that follow `lumbar` wherever it is called: a command's, then perhaps arguments."""
    return [words.split() for words in CALL.findall(code)]


def calls_in(page: str) -> list[list[str]]:
    """Calls in fenced, inline or indented code; prose contains no calls."""
    return [
        words for code in CODE.findall(page) for words in calls(" ".join("".join(code).split()))
    ]


def is_named(command: str, page: str) -> bool:
    """Whether a page calls the command by all its words, or has it in a list of commands."""
    commands = [" ".join(part.split()) for match in LIST.findall(page) for part in match.split(",")]
    return command in commands or any(begins(words, command) for words in calls_in(page))


def begins(words: list[str], command: str) -> bool:
    return " ".join(words[: len(command.split())]) == command


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_in_operations_with_its_meaning(name):
    meaning = Settings.model_fields[name].description
    assert f"| `LUMBAR_{name.upper()}` |" in (DOCS / "operations.md").read_text()
    assert meaning
    assert f"| {meaning} |" in (DOCS / "operations.md").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named_in_the_changelog(command):
    assert is_named(command, CHANGELOG)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_calls_exists(page):
    unknown = [
        words
        for words in calls_in(page.read_text())
        if not any(begins(words, command) for command in COMMANDS)
    ]
    assert unknown == []


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("Start it with `lumbar jobs list`.", True),
        ("    LUMBAR_WEB=false lumbar jobs list --state dead  # the dead ones", True),
        ("`lumbar`: web, jobs\n  list, up.", True),
        ("```sh\nlumbar up\nlumbar jobs list\n```", True),
        ("`lumbar jobs` shows jobs in a list", False),
        ("`lumbar jobs lists`", False),
        ("`lumbar jobs list-all`", False),
        ("`my-lumbar jobs list`", False),
        ("`lumbar`: web, jobs, list.", False),
        ("the lumbar jobs list", False),
    ],
)
def test_a_command_is_named_by_all_its_words_or_not_at_all(page, expected):
    assert is_named("jobs list", page) is expected


@pytest.mark.parametrize("state", StudyState)
def test_every_state_of_a_study_is_documented_in_architecture(state):
    assert state.value in (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("state", JobState)
def test_every_state_of_a_job_is_documented_in_architecture(state):
    assert state.value in (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("table", Table.metadata.tables)
def test_every_table_is_documented_in_architecture(table):
    assert table in (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_the_help_of_every_command_has_an_example(name, command):
    assert command.help
    assert command.epilog.startswith("Example: ")
    assert any(begins(words, name) for words in calls(command.epilog))
