"""What every result must name, so that it can be traced and repeated."""

from dataclasses import dataclass
from enum import StrEnum

RESEARCH_USE_ONLY = "Research use only – not for diagnostic use"
CLEARS_NOBODY = "Only these five conditions were looked for; a low rank clears nobody"


class TrainedOn(StrEnum):
    """What weights have learnt from, the weakest first."""

    NOTHING = "untrained"
    SYNTHETIC = "synthetic"
    CLINICAL = "clinical"

    @property
    def warning(self) -> str | None:
        """The sentence that stands on every output, or None for clinical data."""
        return {
            TrainedOn.NOTHING: "Untrained: initial weights, the figures mean nothing",
            TrainedOn.SYNTHETIC: "Trained on synthetic data",
            TrainedOn.CLINICAL: None,
        }[self]

    @property
    def notices(self) -> tuple[str, ...]:
        """The sentences that stand on every output, most important first."""
        return (RESEARCH_USE_ONLY, CLEARS_NOBODY, *((self.warning,) if self.warning else ()))


@dataclass(frozen=True)
class BundleIdentity:
    """Which weights: a retraining changes ``version`` and ``weights_sha256``, and so every result's UID."""

    name: str
    version: str
    weights_sha256: str
    trained_on: TrainedOn
    preprocessing_version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.trained_on})"


@dataclass(frozen=True)
class Provenance:
    """All that decides a result besides the images; ``input_sop_instance_uids`` names those."""

    bundle: BundleIdentity
    code_version: str
    settings_sha256: str
    input_sop_instance_uids: tuple[str, ...]

    @property
    def notices(self) -> tuple[str, ...]:
        return self.bundle.trained_on.notices
