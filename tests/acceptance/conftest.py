"""The command line with the shipped networks, without a process for each command."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import commands


@pytest.fixture
def shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Runs a command in this process, where the networks are loaded once for all tests."""
    monkeypatch.setenv("LUMBAR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["lumbar", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            commands.main()
        status = ended.value.code or 0
        assert isinstance(status, int)
        return CompletedProcess(arguments, status, *capsys.readouterr())

    return run
