"""Evaluates the whole pipeline on a labelled data set: studies are analysed as in the worker."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.errors import NotAnalysable, WrongSetting
from lumbar.phantoms.dataset import PHANTOM_TRUTH
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Role, Severity
from lumbar.spine.findings import Finding
from lumbar.training.default_timing import with_default_times
from lumbar.training.demographics import (
    Demographics,
    demographics_by_study,
    demographics_of,
    parts_by_study,
    split_sha256,
)
from lumbar.training.metrics import VIEWS, ScoredFinding, correct_views
from lumbar.training.rsna_dataset import Study, read_data_set, read_severities
from lumbar.training.split import Part

GROUPS: Mapping[Role, str] = {
    Role.SAGITTAL_T2: "canal",
    Role.SAGITTAL_T1: "foraminal",
    Role.AXIAL_T2: "subarticular",
}
# Analyses a study: its 25 findings and, for the graded ones, VGG16's probabilities of the views of
# the chosen crop, as in CLASSES["condition"]. Raises NotAnalysable.
Analyse = Callable[
    [Sequence[MRInstance]], tuple[Sequence[Finding], Mapping[FindingKey, Sequence[float]]]
]
UNIFORM = (1 / 3, 1 / 3, 1 / 3)


@dataclass(frozen=True)
class EvaluatedFinding:
    """A labelled finding and the pipeline's result.

    ``label`` is the reader's severity, ``truth`` a phantom's true severity; both are 0 to 2.
    ``probabilities`` (severities) and ``conditions`` (views) are None if it was not assessed.
    ``unreadable``: none of its study's images can be read.
    """

    study: str
    person: Demographics
    key: FindingKey
    label: int
    truth: int | None
    probabilities: tuple[float, float, float] | None
    conditions: tuple[float, ...] | None
    reason: str | None
    unreadable: bool = False

    @property
    def group(self) -> str:
        return GROUPS[self.key.condition.role]

    @property
    def view_correct(self) -> bool:
        """Whether VGG16 recognises the view."""
        if self.conditions is None:
            return False
        label = np.array([VIEWS.index(self.key.condition)])
        return bool(correct_views(np.array([self.conditions], float), label)[0])


def evaluate_bundle(
    data: Path,
    part: Part | None,
    training_data: Mapping[str, Any],
    analyse: Analyse,
    stage: Callable[[str, int], Callable[[int], None]],
) -> list[EvaluatedFinding]:
    """Every labelled finding of the part's studies; of all studies if ``part`` is None.

    A study of which no header can be read belongs to no part. ``training_data``: the entry ``data``
    of the bundle's description, which identifies its split.

    Raises:
        WrongSetting: the data are not in the RSNA 2024 layout, the part has no study, or a part is
            requested and the bundle was not trained on these data.
    """
    data_set = read_data_set(data)
    truths = read_severities(data / PHANTOM_TRUTH) if (data / PHANTOM_TRUTH).is_file() else {}
    people = demographics_by_study(data_set.studies)
    studies = list(data_set.studies)
    if part is not None:
        parts = parts_by_study(data_set.studies, people, int(training_data.get("split_seed", 0)))
        if split_sha256(parts) != training_data.get("split_sha256"):
            raise WrongSetting(
                f"the bundle was not trained on {data} as it is now, so there is no {part} part; "
                "use --part all if none of its patients was used for training"
            )
        studies = [study for study in studies if parts.get(study.name) is part]
    if not studies:
        raise WrongSetting(
            f"{data} has no study with labels and images in its {part or 'whole'} part"
        )
    advance = stage("Reading studies", len(studies))
    findings: list[EvaluatedFinding] = []
    for study in studies:
        person = people.get(study.name) or demographics_of(Dataset(), study.name)
        findings += _evaluate(study, person, truths.get(study.name, {}), analyse)
        advance(1)
    return findings


def _evaluate(
    study: Study, person: Demographics, truth: Mapping[FindingKey, Severity], analyse: Analyse
) -> list[EvaluatedFinding]:
    refusal: str | None = None
    unreadable = True
    findings: dict[FindingKey, Finding] = {}
    conditions: Mapping[FindingKey, Sequence[float]] = {}
    try:
        instances, _ = find_instances(study.folder, study.folder)
        unreadable = False
        graded, conditions = analyse(with_default_times(instances, study.series))
        findings = {finding.key: finding for finding in graded}
    except NotAnalysable as error:
        refusal = str(error)
    order = list(Severity)
    rows = []
    for key in ALL_FINDINGS:
        if key not in study.severities:
            continue
        finding = findings.get(key)
        rows.append(
            EvaluatedFinding(
                study=study.name,
                person=person,
                key=key,
                label=order.index(study.severities[key]),
                truth=order.index(truth[key]) if key in truth else None,
                probabilities=finding.probabilities if finding else None,
                conditions=tuple(conditions[key]) if key in conditions else None,
                reason=refusal or (finding.reason if finding else None),
                unreadable=unreadable,
            )
        )
    return rows


def assessed_arrays(
    findings: Sequence[EvaluatedFinding],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (n, 3) and labels (n,) of the assessed findings."""
    assessed = [f for f in findings if f.probabilities is not None]
    probabilities = np.array([f.probabilities for f in assessed], float).reshape(-1, 3)
    return probabilities, np.array([f.label for f in assessed], int)


def scored(findings: Sequence[EvaluatedFinding]) -> list[ScoredFinding]:
    """The findings as the competition scores them; one not assessed counts as 1/3 per severity."""
    return [ScoredFinding(f.study, f.group, f.probabilities or UNIFORM, f.label) for f in findings]


def write_submission(path: Path, findings: Sequence[EvaluatedFinding]) -> None:
    """Writes a submission in the competition's format: 25 rows per study.

    Conditions are in alphabetical order; a finding that is unlabelled or not assessed has 1/3 per
    severity.
    """
    known = {(f.study, f.key): f.probabilities for f in findings}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("row_id", *Severity))
        for study in dict.fromkeys(f.study for f in findings):
            for key in ALL_FINDINGS:
                values = known.get((study, key)) or UNIFORM
                table.writerow((key.row_id(study), *(f"{value:.6f}" for value in values)))
