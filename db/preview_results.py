"""What was made of an upload, as its row keeps it until it is forgotten: values and words that name no patient."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity


@dataclass(frozen=True)
class Grade:
    """A condition as it was graded: ``probabilities`` and ``shows`` as in ``Finding``, or the reason why not."""

    condition: Condition
    level: Level | None  # None: the image does not tell it
    probabilities: Sequence[float] = ()
    shows: float | None = None
    reason: str | None = None

    @property
    def severity(self) -> Severity | None:
        """The most probable one; the graver where two are equal."""
        graver_last = sorted(
            zip(self.probabilities, Severity, strict=False), key=lambda pair: pair[0]
        )
        return graver_last[-1][1] if graver_last else None


@dataclass(frozen=True)
class Answer:
    """Of a study its findings; of a loose axial slice its readings; of any other single image what it shows as a whole.

    Of images that were kept: the studies they belong to.
    """

    findings: Sequence[Grade] = ()
    readings: Sequence[Grade] = ()
    conditions: Sequence[
        float
    ] = ()  # of one image, in the order of ``Condition``, then none of them
    severities: Sequence[float] = ()  # of one image
    caveats: Sequence[str] = ()
    choices: Sequence[str] = ()
    notices: Sequence[str] = ()
    weights: str = ""
    studies: Sequence[str] = ()  # UIDs

    def stored(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self:
        """The value that ``stored`` gave; an empty one for None."""
        values = {f.name: stored[f.name] for f in fields(cls) if f.name in stored} if stored else {}
        for name in ("findings", "readings"):
            values[name] = tuple(_grade(grade) for grade in values.get(name, ()))
        return cls(**values)

    @property
    def cells(self) -> dict[FindingKey, Grade]:
        """The findings by condition and level."""
        return {
            FindingKey(grade.condition, grade.level): grade
            for grade in self.findings
            if grade.level
        }


def _grade(stored: Mapping[str, Any]) -> Grade:
    level = Level(stored["level"]) if stored["level"] else None
    return Grade(**(dict(stored) | {"condition": Condition(stored["condition"]), "level": level}))
