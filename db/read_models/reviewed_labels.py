"""Reviews as labels for training: the tables of the RSNA 2024 layout, and the images they name.

A finding that nobody has reviewed has no label: networks must not be trained on their own results.
Of several reviews the last counts, whichever revision it belongs to. Studies and series are named
by their UIDs; the images are not de-identified.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
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
    """The labels of reviewed findings, in the RSNA layout."""

    tables: dict[str, str]  # each file's text, by its name
    images: dict[str, str]  # file in the store, by path in the layout; without removed images
    studies: int
    findings: int


@dataclass(frozen=True)
class _ReviewedFinding:
    """A finding, and the severity that its last review gives it."""

    study_instance_uid: str
    finding: FindingRow
    severity: Severity

    @property
    def key(self) -> FindingKey:
        return FindingKey(self.finding.condition, self.finding.level)


@dataclass(frozen=True)
class _Image:
    """An image in the layout."""

    series: str  # Series Instance UID
    number: int  # within the series, from 1
    file: str | None  # in the store; None once retention removed it


def labels(session: Session) -> Labels:
    """The labels of all reviewed findings."""
    reviewed = _last_reviews(session)
    study_ids = {row.study_instance_uid: row.finding.study_id for row in reviewed}
    images = {uid: _images(session, study_id) for uid, study_id in study_ids.items()}
    severities: dict[str, dict[FindingKey, Severity]] = {}
    for row in reviewed:
        severities.setdefault(row.study_instance_uid, {})[row.key] = row.severity
    tables = {LABELS: _label_table(severities)} | _location_tables(reviewed, images)
    files = {
        f"{IMAGES}/{uid}/{image.series}/{image.number}.dcm": image.file
        for uid, study_images in images.items()
        for image in study_images.values()
        if image.file is not None
    }
    return Labels(tables, files, len(severities), sum(map(len, severities.values())))


def _last_reviews(session: Session) -> list[_ReviewedFinding]:
    """The last review of each finding, across its study's revisions; study by study.

    Not those from before a correction, whose images may have been others.
    """
    newest = (
        select(func.max(Review.id))
        .join(FindingRow, FindingRow.id == Review.finding_id)
        .join(Study, Study.id == FindingRow.study_id)
        .where(FindingRow.revision >= Study.corrected_revision)
        .group_by(FindingRow.study_id, FindingRow.condition, FindingRow.level)
    )
    statement = (
        select(Study.study_instance_uid, FindingRow, Review.severity)
        .join(FindingRow, FindingRow.id == Review.finding_id)
        .join(Study, Study.id == FindingRow.study_id)
        .where(Review.id.in_(newest))
        .order_by(Study.id, FindingRow.id)
    )
    return [_ReviewedFinding(*row) for row in session.execute(statement)]


def _images(session: Session, study_id: int) -> dict[str, _Image]:
    """A study's images by SOP Instance UID.

    The numbers are assigned here, in the order of the UIDs: a scanner's InstanceNumber need not be
    unique within a series.
    """
    statement = (
        select(
            Series.series_instance_uid,
            Instance.sop_instance_uid,
            Instance.file,
            Instance.removed_at,
        )
        .join(Series)
        .where(Series.study_id == study_id, Instance.quarantined.is_(None), Instance.is_image)
        .order_by(Series.series_instance_uid, Instance.sop_instance_uid)
    )
    images: dict[str, _Image] = {}
    counts: dict[str, int] = {}
    for series, instance, file, removed_at in session.execute(statement):
        counts[series] = counts.get(series, 0) + 1
        images[instance] = _Image(series, counts[series], None if removed_at else file)
    return images


def _label_table(severities: Mapping[str, Mapping[FindingKey, Severity]]) -> str:
    """A row per study, a column per finding; empty if the finding was not reviewed."""
    columns = [key.row_id("")[1:] for key in ALL_FINDINGS]
    rows = []
    for uid, reviewed in severities.items():
        cells = [reviewed[key].label if key in reviewed else "" for key in ALL_FINDINGS]
        rows.append((uid, *cells))
    return _table(("study_id", *columns), rows)


def _location_tables(
    reviewed: Iterable[_ReviewedFinding], images: Mapping[str, Mapping[str, _Image]]
) -> dict[str, str]:
    """The tables of series roles and of labelled points; of single-frame images only."""
    descriptions: dict[tuple[str, str], str] = {}
    coordinates: list[Sequence[object]] = []
    for row in reviewed:
        uid, finding, key = row.study_instance_uid, row.finding, row.key
        image = images[uid].get(finding.sop_instance_uid or "")
        if image is None or finding.frame is not None:
            continue
        descriptions[uid, image.series] = key.condition.role.label
        condition, level = key.condition.value.replace("_", " ").title(), key.level.label
        coordinates.append(
            (uid, image.series, image.number, condition, level, finding.column, finding.row)
        )
    return {
        DESCRIPTIONS: _table(
            ("study_id", "series_id", "series_description"),
            [(*series, role) for series, role in sorted(descriptions.items())],
        ),
        COORDINATES: _table(
            ("study_id", "series_id", "instance_number", "condition", "level", "x", "y"),
            coordinates,
        ),
    }


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()
