"""What was found, where, and how sure: the values that the pipeline hands to the database and the reports."""

from dataclasses import dataclass

from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity

Probabilities = tuple[float, float, float]

SHOWN = 0.5  # of ``Finding.shows``: below it the crop rather shows something else, and its grade is worth less


@dataclass(frozen=True)
class ImagePoint:
    """The point a finding was read at.

    ``column`` and ``row`` are 0-based pixel coordinates whose integers are pixel centres;
    ``x, y, z`` are patient coordinates in mm (LPS; PS3.3 C.7.6.2). ``frame`` is 1-based, None in a single-frame one.
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
            raise ValueError(f"not probabilities: {self.probabilities}")

    @property
    def key(self) -> FindingKey:
        return FindingKey(self.condition, self.level)

    @property
    def assessed(self) -> bool:
        return self.probabilities is not None

    @property
    def severity(self) -> Severity | None:
        """The most probable severity; the graver one where two are equal. None when not assessed."""
        if self.probabilities is None:
            return None
        graver_last = sorted(zip(self.probabilities, range(3), strict=True))
        return tuple(Severity)[graver_last[-1][1]]
