"""Findings: the values that the pipeline passes to the database and the reports."""

from dataclasses import dataclass

from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity

Probabilities = tuple[float, float, float]

# Threshold of ``Finding.shows``: below it, the crop more likely shows something else, and its
# severity is less reliable.
MIN_VIEW_PROBABILITY = 0.5
# How a caveat about the naming of the levels begins; others concern the choice of the images.
NUMBERING_UNCERTAIN = "the numbering is uncertain"


@dataclass(frozen=True)
class ImagePoint:
    """The point at which a finding was read.

    ``column`` and ``row`` are 0-based pixel coordinates whose integers are pixel centres;
    ``x, y, z`` are patient coordinates in mm (LPS; PS3.3 C.7.6.2). ``frame`` is 1-based, None in a
    single-frame instance.
    """

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None
    column: float
    row: float
    x: float
    y: float
    z: float


@dataclass(frozen=True)
class Finding:
    """One condition at one level: assessed (probabilities and a point) or not (a reason).

    ``probabilities``: normal_mild, moderate, severe; each 0–1, summing to 1.
    ``shows``: VGG16's probability, 0–1, that the crop shows this condition's view.
    """

    condition: Condition
    level: Level
    probabilities: Probabilities | None = None
    point: ImagePoint | None = None
    shows: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.probabilities is None:
            if not self.reason:
                raise ValueError("a finding that is not assessed needs a reason")
            return
        if self.point is None or self.shows is None or self.reason is not None:
            raise ValueError(
                "an assessed finding has a point and a view probability, and no reason"
            )
        if abs(sum(self.probabilities) - 1) > 1e-3 or min(self.probabilities) < 0:
            raise ValueError(f"invalid probabilities: {self.probabilities}")

    @property
    def key(self) -> FindingKey:
        return FindingKey(self.condition, self.level)

    @property
    def assessed(self) -> bool:
        return self.probabilities is not None

    @property
    def severity(self) -> Severity | None:
        """The most probable severity, the more severe of two equal ones; None if not assessed."""
        if self.probabilities is None:
            return None
        ascending = sorted(zip(self.probabilities, range(3), strict=True))
        return tuple(Severity)[ascending[-1][1]]
