"""The tables of the RSNA 2024 layout are read as they are, or refused by name."""

import pytest

import commands
from lumbar.errors import WrongSetting
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role
from lumbar.training.rsna_dataset import LABELS, read_data_set


def test_a_folder_in_another_layout_is_refused(tmp_path):
    with pytest.raises(WrongSetting, match=r"has no train\.csv"):
        read_data_set(tmp_path)
    (tmp_path / "train_images").mkdir()
    for name in (LABELS, "train_series_descriptions.csv", "train_label_coordinates.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(WrongSetting, match="no column study_id"):
        read_data_set(tmp_path)


def test_a_table_without_a_column_or_not_in_utf_8_is_named(tmp_path):
    (tmp_path / "train_images").mkdir()
    columns = ",".join(("study_id", *(key.row_id("")[1:] for key in ALL_FINDINGS)))
    valid = {
        LABELS: f"{columns}\n",
        "train_series_descriptions.csv": "study_id,series_id,series_description\n",
        "train_label_coordinates.csv": "study_id,series_id,instance_number,condition,level,x,y\n",
    }
    for damaged, column in (
        (LABELS, "left_subarticular_stenosis_l2_l3"),
        ("train_series_descriptions.csv", "series_description"),
        ("train_label_coordinates.csv", "instance_number"),
    ):
        for name, text in valid.items():
            (tmp_path / name).write_text(text)
        (tmp_path / damaged).write_text(valid[damaged].replace(column, "other"))
        with pytest.raises(WrongSetting, match=rf"{damaged} has no column {column}"):
            read_data_set(tmp_path)
        (tmp_path / damaged).write_bytes(valid[damaged].encode() + b"\xff\xfe\n")
        with pytest.raises(WrongSetting, match=rf"{damaged} cannot be read as a table"):
            read_data_set(tmp_path)


def test_a_missing_training_dependency_is_named(monkeypatch, capsys):
    def fail_importing(name):
        def run():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("commands.app.app", run)

    fail_importing("sklearn.ensemble")
    with pytest.raises(SystemExit, match="2"):
        commands.main()
    assert (
        "sklearn.ensemble is not installed; training needs `pip install 'lumbar-triage[train]'`"
        in capsys.readouterr().err
    )
    fail_importing("lumbar.nowhere")
    with pytest.raises(ModuleNotFoundError):
        commands.main()


def test_the_competitions_own_files_are_read_unchanged(tmp_path):
    """Byte-order mark, Windows line ends, quotes and many decimals make no difference."""
    (tmp_path / "train_images" / "4003253" / "702807833").mkdir(parents=True)
    columns = ["study_id", *(key.row_id("")[1:] for key in sorted(ALL_FINDINGS))]
    values = ["4003253", "Normal/Mild", "Moderate", "Severe", "", *["Normal/Mild"] * 21]
    (tmp_path / LABELS).write_bytes(
        b"\xef\xbb\xbf" + f"{','.join(columns)}\r\n{','.join(values)}\r\n".encode()
    )
    (tmp_path / "train_series_descriptions.csv").write_text(
        "study_id,series_id,series_description\n"
        '4003253,702807833,"Sagittal T2/STIR"\n'
        "4003253,1054713880,Sagittal T1\n"
    )
    (tmp_path / "train_label_coordinates.csv").write_text(
        "study_id,series_id,instance_number,condition,level,x,y\n"
        "4003253,702807833,8,Spinal Canal Stenosis,L1/L2,322.8318584070796,227.9645032\n"
    )
    (study,) = read_data_set(tmp_path).studies
    order = sorted(ALL_FINDINGS)
    assert study.severities[order[1]].value == "moderate"
    assert order[3] not in study.severities
    key = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L1_L2)
    assert study.annotations[key].x == 322.8318584070796
    assert study.series == {"702807833": Role.SAGITTAL_T2, "1054713880": Role.SAGITTAL_T1}
