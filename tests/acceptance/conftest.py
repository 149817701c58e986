"""The command line with the shipped networks, without a process for each command."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests import command_line


@pytest.fixture
def shipped(tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Runs a command in this process, where the networks are loaded once for all tests."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("LUMBAR_")
    } | {"LUMBAR_HOME": str(tmp_path / "home")}

    def run(*arguments: str) -> CompletedProcess[str]:
        return command_line.run(arguments, environment, tmp_path, stubbed=False)

    return run
