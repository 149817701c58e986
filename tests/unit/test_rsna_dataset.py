"""The tables of the RSNA 2024 layout: read as they are, or refused by name."""

import pytest

import commands
from lumbar.errors import WrongSetting
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role
from lumbar.training.rsna_dataset import LABELS, read_data_set


def test_a_folder_that_is_no_such_data_set_is_refused(tmp_path):
    with pytest.raises(WrongSetting, match=r"has no train\.csv"):
        read_data_set(tmp_path)
    (tmp_path / "train_images").mkdir()
    for name in (LABELS, "train_series_descriptions.csv", "train_label_coordinates.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(WrongSetting, match="no column study_id"):
        read_data_set(tmp_path)


def test_a_table_that_lacks_a_column_or_is_no_text_is_named(tmp_path):
    (tmp_path / "train_images").mkdir()
    columns = ",".join(("study_id", *(key.row_id("")[1:] for key in ALL_FINDINGS)))
    good = {
        LABELS: f"{columns}\n",
        "train_series_descriptions.csv": "study_id,series_id,series_description\n",
        "train_label_coordinates.csv": "study_id,series_id,instance_number,condition,level,x,y\n",
    }
    for spoilt, column in (
        (LABELS, "left_subarticular_stenosis_l2_l3"),
        ("train_series_descriptions.csv", "series_description"),
        ("train_label_coordinates.csv", "instance_number"),
    ):
        for name, text in good.items():
            (tmp_path / name).write_text(text)
        (tmp_path / spoilt).write_text(good[spoilt].replace(column, "other"))
        with pytest.raises(WrongSetting, match=rf"{spoilt} has no column {column}"):
            read_data_set(tmp_path)
        (tmp_path / spoilt).write_bytes(good[spoilt].encode() + b"\xff\xfe\n")
        with pytest.raises(WrongSetting, match=rf"{spoilt} cannot be read as a table"):
            read_data_set(tmp_path)


def test_what_teaching_needs_and_is_not_installed_is_named(monkeypatch, capsys):
    def lacking(name):
        def run():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("commands.app.app", run)

    lacking("sklearn.ensemble")
    with pytest.raises(SystemExit, match="2"):
        commands.main()
    assert (
        "sklearn.ensemble is not installed; training needs `pip install 'lumbar-triage[train]'`"
        in capsys.readouterr().err
    )
    lacking("lumbar.nowhere")
    with pytest.raises(ModuleNotFoundError):
        commands.main()


def test_the_competition_s_own_files_are_read_as_they_are(tmp_path):
    """A byte-order mark, Windows line ends, quotes and coordinates with many decimals make no difference."""
    (tmp_path / "train_images" / "4003253" / "702807833").mkdir(parents=True)
    columns = [key.row_id("")[1:] for key in sorted(ALL_FINDINGS)]
    values = ["Normal/Mild", "Moderate", "Severe", "", *["Normal/Mild"] * 21]
    (tmp_path / LABELS).write_bytes(
        b"\xef\xbb\xbf" + f"study_id,{','.join(columns)}\r\n4003253,{','.join(values)}\r\n".encode()
    )
    (tmp_path / "train_series_descriptions.csv").write_text(
        'study_id,series_id,series_description\n4003253,702807833,"Sagittal T2/STIR"\n4003253,1054713880,Sagittal T1\n'
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
    assert study.marks[key].x == 322.8318584070796
    assert study.series == {"702807833": Role.SAGITTAL_T2, "1054713880": Role.SAGITTAL_T1}
