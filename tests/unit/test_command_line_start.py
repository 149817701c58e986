"""A command imports only what it needs, and the overview needs nothing but the names."""

import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from commands import version
from commands.app import Lumbar, app
from lumbar import VERSION
from lumbar.networks.bundle import SHIPPED, read_identity

NETWORKS = ("keras", "tensorflow", "numpy")
PEERS = ("pynetdicom", "highdicom", "pydicom", "requests", "dicomweb_client")
SERVICES = ("fastapi", "celery", "redis", "argon2")
HEAVY = (*NETWORKS, *PEERS, *SERVICES, "alembic", "structlog")
DATABASE = ("sqlalchemy", "pydantic_settings", "rich")


def imported_by(home, *arguments):
    """The top-level modules that `lumbar` has imported when it exits, in a process of its own."""
    code = (
        "import atexit, sys\n"
        "names = lambda: {name.split(chr(46))[0] for name in sys.modules}\n"
        "atexit.register(lambda: sys.stderr.write(chr(32).join(names())))\n"
        "import commands\n"
        "commands.main()\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"LUMBAR_HOME": str(home), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr
    return set(completed.stderr.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A site with a migrated, empty database."""
    home = tmp_path_factory.mktemp("start")
    imported_by(home, "db", "upgrade")
    return home


def test_the_overview_imports_no_command(home):
    assert imported_by(home, "--help").isdisjoint({*HEAVY, *DATABASE})


@pytest.mark.parametrize("command", ["worklist", "findings", "status"])
def test_a_list_imports_the_database_and_nothing_heavier(home, command):
    imported = imported_by(home, command)
    assert imported.isdisjoint(HEAVY)
    assert imported >= set(DATABASE)


def test_an_upgrade_with_nothing_to_do_is_as_quick_as_a_list(home):
    assert imported_by(home, "db", "upgrade").isdisjoint(HEAVY)


def test_the_version_is_shown_without_loading_a_network(home):
    assert imported_by(home, "--version").isdisjoint({*HEAVY, "sqlalchemy"})


def test_the_overview_lists_exactly_the_commands_of_the_modules():
    """Each name leads to its command, and no command of a module is missing from the overview."""
    names = {name for commands in Lumbar.sections.values() for name in commands}
    modules = {module for commands in Lumbar.sections.values() for module, _ in commands.values()}
    loaded = get_command(app).commands
    assert set(loaded) == names
    assert all(loaded[name].name == name for name in names)
    expected = {
        command.name or command.callback.__name__.replace("_", "-")
        for module in modules
        if not (group := sys.modules[f"commands.{module}"].app).registered_callback
        for command in group.registered_commands
    }
    assert expected <= names


def test_the_version_names_the_commit_and_the_weights():
    code, weights = CliRunner().invoke(app, ["--version"]).stdout.splitlines()
    identity = read_identity(SHIPPED)
    assert code.startswith(f"lumbar-triage {VERSION}")
    assert weights == f"weights: phantom 1 (synthetic), sha256 {identity.weights_sha256[:16]}"


def test_the_commit_is_the_one_stated_by_the_build_or_else_by_git(monkeypatch, tmp_path):
    monkeypatch.setattr(version, "ROOT", tmp_path)
    monkeypatch.setattr(version, "BUILT_FROM", tmp_path / "COMMIT")
    monkeypatch.setattr(version, "_installed_from", lambda: None)
    assert version.commit() is None
    (tmp_path / ".git").mkdir()  # a checkout that git cannot read, or without git
    assert version.commit() is None
    monkeypatch.setenv("PATH", "")
    assert version.commit() is None
    (tmp_path / "COMMIT").write_text("1a2b3c4\n")
    assert version.commit() == "1a2b3c4"


def test_a_bundle_that_cannot_be_read_does_not_hide_the_version(monkeypatch, tmp_path):
    monkeypatch.setenv("LUMBAR_BUNDLE", str(tmp_path))
    output = CliRunner().invoke(app, ["--version"])
    assert output.exit_code == 0
    assert VERSION in output.stdout
    assert "bundle.json cannot be read" in output.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lumbar req", ["requeue"]),
        ("lumbar stu", ["study"]),
        ("lumbar study c", ["correct"]),
        ("lumbar study 1.2 --f", ["--format"]),
        ("lumbar study correct --", ["--correction", "--help"]),
        ("lumbar quarantine r", ["release"]),
    ],
)
def test_a_shell_is_offered_the_names_of_commands_and_options(monkeypatch, words, offered):
    monkeypatch.setenv("_LUMBAR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    completed = CliRunner().invoke(app, [], prog_name="lumbar")
    assert completed.stdout.split() == offered


def test_a_command_of_two_words_has_its_own_help_and_the_first_keeps_its():
    correct = CliRunner().invoke(app, ["study", "correct", "--help"], prog_name="lumbar").stdout
    assert correct.startswith("Usage: lumbar study correct [OPTIONS] {UID}")
    study = CliRunner().invoke(app, ["study", "--help"], prog_name="lumbar").stdout
    assert study.startswith("Usage: lumbar study [OPTIONS] {UID}")
    assert "--format" in study
    assert "lumbar study correct UID" in study
