"""What readers said, as labels to learn from: the tables of the RSNA 2024 layout, and which files belong to them.

A finding that nobody has reviewed has no label: the networks' own word must not teach them. Of several reviews the last
counts, whichever revision it was of. Studies and series are named by their UIDs; the files are the patients' own.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import FindingRow, Instance, Review, Series, Study
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Severity

LABELS, DESCRIPTIONS, COORDINATES = (
    "train.csv",
    "train_series_descriptions.csv",
    "train_label_coordinates.csv",
)
IMAGES = "train_images"


@dataclass(frozen=True)
class Labels:
    """``tables``: each file's name and text. ``images``: path in the layout → file in the store, while it is held."""

    tables: dict[str, str]
    images: dict[str, str]
    studies: int
    findings: int


def labels(session: Session) -> Labels:
    """Everything that was reviewed."""
    newest = select(func.max(Review.id)).join(FindingRow, FindingRow.id == Review.finding_id)
    newest = newest.group_by(FindingRow.study_id, FindingRow.condition, FindingRow.level)
    asked = (
        select(Study.study_instance_uid, Study.id, Review.severity, FindingRow)
        .join(FindingRow, FindingRow.id == Review.finding_id)
        .join(Study, Study.id == FindingRow.study_id)
        .where(Review.id.in_(newest))
        .order_by(Study.id, FindingRow.id)
    )
    severities: dict[str, dict[FindingKey, Severity]] = {}
    described: dict[tuple[str, str], str] = {}
    marked: list[tuple[object, ...]] = []
    images: dict[str, str] = {}
    held: dict[int, dict[str, tuple[str, str]]] = {}
    for uid, study_id, severity, finding in session.execute(asked):
        key = FindingKey(finding.condition, finding.level)
        severities.setdefault(uid, {})[key] = severity
        if study_id not in held:
            held[study_id] = _numbered(session, study_id)
            images |= {
                f"{IMAGES}/{uid}/{place}.dcm": file
                for place, file in held[study_id].values()
                if file
            }
        place, _ = held[study_id].get(finding.sop_instance_uid or "", ("", ""))
        if not place or finding.frame is not None:
            continue  # the layout has single-frame images only
        series, number = place.split("/")
        described[uid, series] = key.condition.role.label
        condition = key.condition.value.replace("_", " ").title()
        marked.append(
            (uid, series, number, condition, key.level.label, finding.column, finding.row)
        )
    columns = [key.row_id("")[1:] for key in ALL_FINDINGS]
    grades = [
        (uid, *(own[key].label if key in own else "" for key in ALL_FINDINGS))
        for uid, own in severities.items()
    ]
    tables = {
        LABELS: _table(("study_id", *columns), grades),
        DESCRIPTIONS: _table(
            ("study_id", "series_id", "series_description"),
            [(*of, role) for of, role in sorted(described.items())],
        ),
        COORDINATES: _table(
            ("study_id", "series_id", "instance_number", "condition", "level", "x", "y"), marked
        ),
    }
    return Labels(tables, images, len(severities), sum(map(len, severities.values())))


def _numbered(session: Session, study_id: int) -> dict[str, tuple[str, str]]:
    """By SOP Instance UID: ``<series>/<number>``, and the file in the store, empty where it was removed.

    Numbers are ours, in the order of the UIDs: a scanner's InstanceNumber need not be unique in a series.
    """
    asked = (
        select(
            Series.series_instance_uid,
            Instance.sop_instance_uid,
            Instance.file,
            Instance.removed_at,
        )
        .join(Series)
        .where(Series.study_id == study_id, Instance.quarantined.is_(None))
        .order_by(Series.series_instance_uid, Instance.sop_instance_uid)
    )
    places: dict[str, tuple[str, str]] = {}
    counts: dict[str, int] = {}
    for series, instance, file, removed_at in session.execute(asked):
        counts[series] = counts.get(series, 0) + 1
        places[instance] = (f"{series}/{counts[series]}", "" if removed_at else file)
    return places


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()
