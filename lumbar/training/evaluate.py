"""The whole pipeline against a data set's labels: studies read as the worker reads them, points found, not given."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar.dicom.folder import Found, find_instances
from lumbar.errors import NotAnalysable, WrongSetting
from lumbar.networks.classifiers import CLASSES
from lumbar.phantoms.dataset import PHANTOM_TRUTH
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Role, Severity
from lumbar.spine.findings import Finding
from lumbar.training.crops import Person, first_header, person_of
from lumbar.training.data_set import Study, read_data_set, severities_of
from lumbar.training.metrics import Scored
from lumbar.training.split import Part, split_studies

GROUPS: Mapping[Role, str] = {Role.SAGITTAL_T2: "canal", Role.SAGITTAL_T1: "foraminal", Role.AXIAL_T2: "subarticular"}
# What the pipeline makes of a study: 25 findings, and of the graded ones what VGG16 says of the chosen view, as in
# CLASSES["condition"]. Raises NotAnalysable.
Read = Callable[[Sequence[Found]], tuple[Sequence[Finding], Mapping[FindingKey, Sequence[float]]]]


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
        """Whether VGG16 recognises the view: its most probable class is the condition. A sagittal crop cannot show its
        side, so there left and right are summed, and geometry has told the side."""
        if self.conditions is None:
            return False
        seen = dict(zip(CLASSES["condition"], self.conditions, strict=True))
        left, right = Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING
        seen[left] = seen[right] = seen[left] + seen[right]
        return seen[self.key.condition] >= max(seen.values())


def evaluate_bundle(
    data: Path, part: Part | None, seed: int, read: Read, stage: Callable[[str, int], Callable[[int], None]]
) -> list[Judged]:
    """Every labelled finding of the studies of a part, as the split of ``seed`` has them; of all studies where None.

    Raises WrongSetting where the data are not in the layout, or the part holds no study.
    """
    found = read_data_set(data)
    truths = severities_of(data / PHANTOM_TRUTH) if (data / PHANTOM_TRUTH).is_file() else {}
    headers = {study.name: first_header(study) for study in found.studies}
    people = {name: person_of(header, name) for name, header in headers.items() if header is not None}
    studies = [study for study in found.studies if study.name in people]
    if part is not None:
        parts = split_studies(studies, {name: person.patient for name, person in people.items()}, seed)
        studies = [study for study in studies if parts[people[study.name].patient] is part]
    if not studies:
        raise WrongSetting(f"{data} has no study with labels and images in its {part or 'whole'} part")
    advance = stage("Reading studies", len(studies))
    judged: list[Judged] = []
    for study in studies:
        judged += _judged(study, people[study.name], truths.get(study.name, {}), read)
        advance(1)
    return judged


def _judged(study: Study, person: Person, truth: Mapping[FindingKey, Severity], read: Read) -> list[Judged]:
    refused: str | None = None
    findings: dict[FindingKey, Finding] = {}
    conditions: Mapping[FindingKey, Sequence[float]] = {}
    try:
        instances, _ = find_instances(study.folder, study.folder)
        graded, conditions = read(instances)
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
    return [Scored(j.study, j.group, j.probabilities or (1 / 3, 1 / 3, 1 / 3), j.label) for j in judged]


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
