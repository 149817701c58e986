"""The result of an upload, as stored in its row: values and notes that identify no patient."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity


@dataclass(frozen=True)
class PreviewFinding:
    """A graded condition, or the reason why it has no severity.

    ``probabilities`` and ``shows`` as in ``Finding``.
    """

    condition: Condition
    level: Level | None  # None: the image does not show which level it is
    probabilities: Sequence[float] = ()
    shows: float | None = None
    reason: str | None = None

    @property
    def severity(self) -> Severity | None:
        """The most probable one; of two equally probable ones the more severe."""
        ascending = sorted(
            zip(self.probabilities, Severity, strict=False), key=lambda pair: pair[0]
        )
        return ascending[-1][1] if ascending else None


@dataclass(frozen=True)
class PreviewResult:
    """A study's findings, an axial slice's readings or another single image's classification.

    If the images were ingested instead, only the studies they belong to and notes.
    """

    findings: Sequence[PreviewFinding] = ()
    readings: Sequence[PreviewFinding] = ()
    conditions: Sequence[float] = ()  # of one image, in the order of ``Condition``, then "none"
    severities: Sequence[float] = ()  # of one image
    caveats: Sequence[str] = ()
    choices: Sequence[str] = ()
    notices: Sequence[str] = ()
    weights: str = ""
    studies: Sequence[str] = ()  # Study Instance UIDs

    def to_json(self) -> dict[str, Any]:
        """The value for a JSON column."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Self:
        """The value that ``to_json`` returned; an empty one for None."""
        stored = stored or {}
        values = {field.name: stored[field.name] for field in fields(cls) if field.name in stored}
        for name in ("findings", "readings"):
            values[name] = tuple(_finding(finding) for finding in values.get(name, ()))
        return cls(**values)

    @property
    def cells(self) -> dict[FindingKey, PreviewFinding]:
        """The findings by condition and level."""
        levelled = ((finding, finding.level) for finding in self.findings)
        return {
            FindingKey(finding.condition, level): finding for finding, level in levelled if level
        }


def _finding(stored: Mapping[str, Any]) -> PreviewFinding:
    level = Level(stored["level"]) if stored["level"] else None
    typed = {"condition": Condition(stored["condition"]), "level": level}
    return PreviewFinding(**(dict(stored) | typed))
