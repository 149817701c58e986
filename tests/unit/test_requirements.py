"""What a command needs is checked before it starts its work, and named in one line."""

import sys
from pathlib import Path

import pytest

import commands
from commands import requirements
from lumbar import networks
from lumbar.dicom import discover
from lumbar.errors import WrongSetting
from lumbar.networks import installed


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command that must not read any file; returns its last line on standard error."""

    def fail(*arguments):
        raise AssertionError("it began to work")

    monkeypatch.setenv("LUMBAR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(discover, "files_in", fail)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lumbar", *map(str, arguments)])
        with pytest.raises(SystemExit, match="2"):
            commands.main()
        return capsys.readouterr().err.splitlines()[-1]

    return run


def hide(monkeypatch, hidden):
    for module in (networks, requirements):
        monkeypatch.setattr(module, "installed", lambda name: name != hidden and installed(name))


@pytest.mark.parametrize(
    "command",
    [
        ("analyse", "study"),
        ("classify", "image.dcm"),
        ("evaluate", "data"),
        ("evaluate", "data", "--levels"),
        ("train", "data", "--out", "out"),
        ("train", "--levels", "--out", "out"),
        ("compare", "data", "--work", "work"),
        ("export", "bundle", "--out", "out"),
    ],
    ids=" ".join,
)
def test_tensorflow_is_named_before_anything_is_read(run, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "tensorflow")
    assert run(*command) == (
        "lumbar: TensorFlow is not installed; the networks need "
        "`pip install 'lumbar-triage[cpu]'`, or [gpu]"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (("train", "data", "--out", "out"), "matplotlib"),
        (("train", "data", "--out", "out"), "tensorboard"),
        (("evaluate", "data"), "markdown"),
        (("compare", "data", "--work", "work"), "sklearn"),
        (("export", "bundle", "--out", "out"), "tf2onnx"),
        (("export", "bundle", "--out", "out", "--as", "onnx"), "onnxruntime"),
    ],
)
def test_a_package_that_is_used_at_the_end_is_named_at_the_start(
    run, monkeypatch, tmp_path, command, module
):
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, module)
    assert run(*command) == (
        f"lumbar: {module} is not installed; training needs `pip install 'lumbar-triage[train]'`"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_results_that_cannot_be_made_is_named_at_the_start(run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "report"
    for command in (("evaluate", "data"), ("train", "data")):
        assert f"{out} cannot be made" in run(*command, "--out", out)


def test_a_module_that_is_blocked_is_not_installed(monkeypatch):
    assert installed("tensorflow")
    assert not installed("no_such_module")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert not installed("tensorflow")
    for load in (networks.load, networks.load_keypoints):
        with pytest.raises(WrongSetting, match="TensorFlow is not installed"):
            load(Path("anywhere"))
