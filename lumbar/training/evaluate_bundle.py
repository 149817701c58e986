"""The whole pipeline against a data set's labels: studies read as the worker reads them, points found, not given."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.errors import NotAnalysable, WrongSetting
from lumbar.phantoms.dataset import PHANTOM_TRUTH
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Role, Severity
from lumbar.spine.findings import Finding
from lumbar.training.default_timing import with_times
from lumbar.training.demographics import Person, parts_of, people_of, split_sha256
from lumbar.training.metrics import VIEWS, Scored, views_right
from lumbar.training.rsna_dataset import Study, read_data_set, severities_of
from lumbar.training.split import Part

GROUPS: Mapping[Role, str] = {
    Role.SAGITTAL_T2: "canal",
    Role.SAGITTAL_T1: "foraminal",
    Role.AXIAL_T2: "subarticular",
}
# What the pipeline makes of a study: 25 findings, and of the graded ones what VGG16 says of the chosen view, as in
# CLASSES["condition"]. Raises NotAnalysable.
Read = Callable[
    [Sequence[MRInstance]], tuple[Sequence[Finding], Mapping[FindingKey, Sequence[float]]]
]


@dataclass(frozen=True)
class Judged:
    """A labelled finding and what was made of it.

    ``label`` is the reader's severity, ``truth`` the phantom's where it is one; 0 to 2. ``probabilities`` and
    ``conditions`` are None where the finding was not assessed.
    """

    study: str
    person: Person
    key: FindingKey
    label: int
    truth: int | None
    probabilities: tuple[float, float, float] | None
    conditions: tuple[float, ...] | None
    reason: str | None

    @property
    def group(self) -> str:
        return GROUPS[self.key.condition.role]

    @property
    def shown(self) -> bool:
        """Whether VGG16 recognises the view."""
        if self.conditions is None:
            return False
        label = np.array([VIEWS.index(self.key.condition)])
        return bool(views_right(np.array([self.conditions], float), label)[0])


def evaluate_bundle(
    data: Path,
    part: Part | None,
    learnt: Mapping[str, Any],
    read: Read,
    stage: Callable[[str, int], Callable[[int], None]],
) -> list[Judged]:
    """Every labelled finding of the studies of a part; of all studies where None.

    ``learnt``: what the bundle's description says of the data it has learnt from. Raises WrongSetting where the data
    are not in the layout, or a part is asked for and they are not those data, or the part holds no study.
    """
    found = read_data_set(data)
    truths = severities_of(data / PHANTOM_TRUTH) if (data / PHANTOM_TRUTH).is_file() else {}
    people = people_of(found.studies)
    studies = [study for study in found.studies if study.name in people]
    if part is not None:
        parts = parts_of(found.studies, people, int(learnt.get("split_seed", 0)))
        if split_sha256(parts) != learnt.get("split_sha256"):
            raise WrongSetting(
                f"the bundle has not learnt from {data} as it is now, so it has no {part} part; say --part all, "
                "if none of its patients was learnt from"
            )
        studies = [study for study in studies if parts.get(study.name) is part]
    if not studies:
        raise WrongSetting(
            f"{data} has no study with labels and images in its {part or 'whole'} part"
        )
    advance = stage("Reading studies", len(studies))
    judged: list[Judged] = []
    for study in studies:
        judged += _judged(study, people[study.name], truths.get(study.name, {}), read)
        advance(1)
    return judged


def _judged(
    study: Study, person: Person, truth: Mapping[FindingKey, Severity], read: Read
) -> list[Judged]:
    refused: str | None = None
    findings: dict[FindingKey, Finding] = {}
    conditions: Mapping[FindingKey, Sequence[float]] = {}
    try:
        instances, _ = find_instances(study.folder, study.folder)
        graded, conditions = read(with_times(instances, study.series))
        findings = {finding.key: finding for finding in graded}
    except NotAnalysable as error:
        refused = str(error)
    order = list(Severity)
    rows = []
    for key in ALL_FINDINGS:
        if key not in study.severities:
            continue
        finding = findings.get(key)
        rows.append(
            Judged(
                study=study.name,
                person=person,
                key=key,
                label=order.index(study.severities[key]),
                truth=order.index(truth[key]) if key in truth else None,
                probabilities=finding.probabilities if finding else None,
                conditions=tuple(conditions[key]) if key in conditions else None,
                reason=refused or (finding.reason if finding else None),
            )
        )
    return rows


def arrays_of(judged: Sequence[Judged]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (n, 3) and labels of the assessed ones."""
    assessed = [j for j in judged if j.probabilities is not None]
    return np.array([j.probabilities for j in assessed], float).reshape(-1, 3), np.array(
        [j.label for j in assessed], int
    )


def scored(judged: Sequence[Judged]) -> list[Scored]:
    """As the competition would score them; one not assessed answers a third to each."""
    return [
        Scored(j.study, j.group, j.probabilities or (1 / 3, 1 / 3, 1 / 3), j.label) for j in judged
    ]


def write_submission(path: Path, judged: Sequence[Judged]) -> None:
    """The rows in the competition's format: 25 a study, conditions in alphabetical order; a third to each class where
    nothing was assessed or nothing was asked."""
    known = {(j.study, j.key): j.probabilities for j in judged}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("row_id", *Severity))
        for study in dict.fromkeys(j.study for j in judged):
            for key in ALL_FINDINGS:
                values = known.get((study, key)) or (1 / 3, 1 / 3, 1 / 3)
                table.writerow((key.row_id(study), *(f"{value:.6f}" for value in values)))
