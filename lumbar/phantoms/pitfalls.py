"""The irregularities of the RSNA 2024 data, planted in a data set of phantoms.

In the competition's own files there are: missing labels, labels without coordinates and vice versa,
several axial or T1 series or none, instance numbers with gaps and in either direction, mixed matrix
sizes, interchanged levels. In any collection of files there are: unreadable images, damaged pixels,
headers without TR and TE, studies without images. The competition's headers lack more than that.
"""

import csv
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileDataset

from lumbar.phantoms.dicom_files import derive_uid
from lumbar.phantoms.rsna_headers import rewrite_as_rsna
from lumbar.spine.anatomy import Role

LABELS, DESCRIPTIONS, COORDINATES = (
    "train.csv",
    "train_series_descriptions.csv",
    "train_label_coordinates.csv",
)

Row = dict[str, str]
Tables = Mapping[str, list[Row]]


def plant_pitfalls(data: Path) -> dict[str, str]:
    """Plants one pitfall in each of the first studies, in place; returns each pitfall's study.

    Raises:
        ValueError: there are fewer studies than pitfalls.
    """
    tables = {name: _read(data / name) for name in (LABELS, DESCRIPTIONS, COORDINATES)}
    studies = [row["study_id"] for row in tables[LABELS]]
    if len(studies) < len(PITFALLS):
        raise ValueError(f"{len(PITFALLS)} studies are needed, not {len(studies)}")
    planted = {}
    for study, (name, plant) in zip(studies, PITFALLS.items(), strict=False):
        plant(data / "train_images" / study, study, tables)
        planted[name] = study
    for name, rows in tables.items():
        _write(data / name, rows)
    return planted


def _missing_severities(folder: Path, study: str, tables: Tables) -> None:
    row = _row(tables, study)
    row["spinal_canal_stenosis_l1_l2"] = row["left_subarticular_stenosis_l3_l4"] = ""


def _severity_without_coordinates(folder: Path, study: str, tables: Tables) -> None:
    _drop_annotation(tables, study, "Spinal Canal Stenosis", "L2/L3")


def _coordinates_without_severity(folder: Path, study: str, tables: Tables) -> None:
    _row(tables, study)["right_neural_foraminal_narrowing_l5_s1"] = ""


def _second_axial_series(folder: Path, study: str, tables: Tables) -> None:
    """The upper half of the axial slices, with annotations, in a separate series."""
    series = _series(tables, study, Role.AXIAL_T2)
    files = _files(folder / series)
    upper = sorted(
        files, key=lambda f: float(dcmread(f, stop_before_pixels=True).ImagePositionPatient[2])
    )
    other = str(int(series) + 5)
    (folder / other).mkdir()
    moved = {file.stem for file in upper[len(upper) // 2 :]}
    for file in files:
        if file.stem in moved:
            ds = dcmread(file)
            ds.SeriesInstanceUID = derive_uid(ds.SeriesInstanceUID, "second")
            ds.save_as(folder / other / file.name)
            file.unlink()
    tables[DESCRIPTIONS].append(
        {"study_id": study, "series_id": other, "series_description": Role.AXIAL_T2.label}
    )
    for row in _annotations(tables, study):
        if row["series_id"] == series and row["instance_number"] in moved:
            row["series_id"] = other


def _two_t1_series(folder: Path, study: str, tables: Tables) -> None:
    series = _series(tables, study, Role.SAGITTAL_T1)
    other = str(int(series) + 6)
    (folder / other).mkdir()
    for file in _files(folder / series):
        ds = dcmread(file)
        ds.SeriesInstanceUID = derive_uid(ds.SeriesInstanceUID, "again")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = derive_uid(
            ds.SOPInstanceUID, "again"
        )
        ds.save_as(folder / other / file.name)
    tables[DESCRIPTIONS].append(
        {"study_id": study, "series_id": other, "series_description": Role.SAGITTAL_T1.label}
    )


def _without(role: Role) -> Callable[[Path, str, Tables], None]:
    def plant(folder: Path, study: str, tables: Tables) -> None:
        series = _series(tables, study, role)
        shutil.rmtree(folder / series)
        tables[DESCRIPTIONS][:] = [r for r in tables[DESCRIPTIONS] if r["series_id"] != series]
        tables[COORDINATES][:] = [r for r in tables[COORDINATES] if r["series_id"] != series]

    return plant


def _gaps_in_instance_numbers(folder: Path, study: str, tables: Tables) -> None:
    series = _series(tables, study, Role.SAGITTAL_T2)
    _renumber(folder, series, lambda n, count: 7 * n + (5000 if n == count else 0), tables)


def _axial_numbers_reversed(folder: Path, study: str, tables: Tables) -> None:
    _renumber(folder, _series(tables, study, Role.AXIAL_T2), lambda n, count: count + 1 - n, tables)


def _t1_numbers_reversed(folder: Path, study: str, tables: Tables) -> None:
    _renumber(
        folder, _series(tables, study, Role.SAGITTAL_T1), lambda n, count: count + 1 - n, tables
    )


def _mixed_matrix_sizes(folder: Path, study: str, tables: Tables) -> None:
    """Every other axial slice loses a border of 16 pixels; its annotations are adjusted."""
    series = _series(tables, study, Role.AXIAL_T2)
    for file in _files(folder / series)[::2]:
        ds = dcmread(file)
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            ds.decompress(generate_instance_uid=False)
        pixels = np.ascontiguousarray(ds.pixel_array[16:-16, 16:-16])
        axes, spacing = (
            np.array(ds.ImageOrientationPatient, float).reshape(2, 3),
            float(ds.PixelSpacing[0]),
        )
        corner = np.array(ds.ImagePositionPatient, float) + 16 * spacing * axes.sum(axis=0)
        ds.ImagePositionPatient = [f"{v:.6f}" for v in corner]
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = pixels.tobytes()
        ds.save_as(file)
        for row in _annotations(tables, study):
            if row["series_id"] == series and row["instance_number"] == file.stem:
                row["x"], row["y"] = (f"{float(row[c]) - 16:.3f}" for c in "xy")


def _interchanged_levels(folder: Path, study: str, tables: Tables) -> None:
    """The canal's L4/L5 is annotated as L5/S1, and its L5/S1 as L4/L5."""
    swapped = {"L4/L5": "L5/S1", "L5/S1": "L4/L5"}
    for row in _annotations(tables, study):
        if row["condition"] == "Spinal Canal Stenosis":
            row["level"] = swapped.get(row["level"], row["level"])


def _unreadable_image(folder: Path, study: str, tables: Tables) -> None:
    """The annotated L3/L4 slice of the left foramen is truncated within its header."""
    (row,) = (
        r
        for r in _annotations(tables, study)
        if (r["condition"], r["level"]) == ("Left Neural Foraminal Narrowing", "L3/L4")
    )
    file = folder / row["series_id"] / f"{row['instance_number']}.dcm"
    file.write_bytes(file.read_bytes()[:700])


def _damaged_pixels(folder: Path, study: str, tables: Tables) -> None:
    """The annotated L1/L2 slice of the right recess has lost most of its pixels."""
    (row,) = (
        r
        for r in _annotations(tables, study)
        if (r["condition"], r["level"]) == ("Right Subarticular Stenosis", "L1/L2")
    )
    file = folder / row["series_id"] / f"{row['instance_number']}.dcm"
    ds = dcmread(file)
    ds.PixelData = ds.PixelData[:1000]
    ds.save_as(file)


def _without_times(folder: Path, study: str, tables: Tables) -> None:
    """No TR, TE or TI: only the table states the weighting of a series."""
    for file in folder.rglob("*.dcm"):
        ds = dcmread(file)
        for name in (
            "RepetitionTime",
            "EchoTime",
            "InversionTime",
            "ScanningSequence",
            "SequenceVariant",
        ):
            if name in ds:
                del ds[name]
        ds.save_as(file)


def _rsna_headers(folder: Path, study: str, tables: Tables) -> None:
    """No class, no times, and the same SOP Instance UIDs in every series."""
    rewrite_as_rsna(folder)


def _no_images(folder: Path, study: str, tables: Tables) -> None:
    shutil.rmtree(folder)


PITFALLS: Mapping[str, Callable[[Path, str, Tables], None]] = {
    "missing severities": _missing_severities,
    "a severity without coordinates": _severity_without_coordinates,
    "coordinates without a severity": _coordinates_without_severity,
    "a second axial series": _second_axial_series,
    "two T1 series": _two_t1_series,
    "no T1 series": _without(Role.SAGITTAL_T1),
    "no T2 series": _without(Role.SAGITTAL_T2),
    "gaps in the instance numbers": _gaps_in_instance_numbers,
    "axial slices numbered in reverse": _axial_numbers_reversed,
    "T1 slices numbered in reverse": _t1_numbers_reversed,
    "mixed matrix sizes": _mixed_matrix_sizes,
    "interchanged levels": _interchanged_levels,
    "an unreadable image": _unreadable_image,
    "damaged pixels": _damaged_pixels,
    "no TR and TE in the headers": _without_times,
    "no images": _no_images,
    "headers as in the RSNA 2024 files": _rsna_headers,
}


def _row(tables: Tables, study: str) -> Row:
    return next(row for row in tables[LABELS] if row["study_id"] == study)


def _annotations(tables: Tables, study: str) -> list[Row]:
    return [row for row in tables[COORDINATES] if row["study_id"] == study]


def _drop_annotation(tables: Tables, study: str, condition: str, level: str) -> None:
    tables[COORDINATES][:] = [
        r
        for r in tables[COORDINATES]
        if (r["study_id"], r["condition"], r["level"]) != (study, condition, level)
    ]


def _series(tables: Tables, study: str, role: Role) -> str:
    return next(
        row["series_id"]
        for row in tables[DESCRIPTIONS]
        if row["study_id"] == study and row["series_description"] == role.label
    )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"), key=lambda file: int(file.stem))


def _renumber(folder: Path, series: str, number: Callable[[int, int], int], tables: Tables) -> None:
    files = _files(folder / series)
    renamed = {file.stem: str(number(i, len(files))) for i, file in enumerate(files, 1)}
    read: dict[str, FileDataset] = {file.stem: dcmread(file) for file in files}
    for file in files:
        file.unlink()
    for old, ds in read.items():
        ds.InstanceNumber = renamed[old]
        ds.save_as(folder / series / f"{renamed[old]}.dcm")
    for row in tables[COORDINATES]:
        if row["series_id"] == series:
            row["instance_number"] = renamed[row["instance_number"]]


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
