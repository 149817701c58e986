"""What every result states so that it can be traced and reproduced."""

from dataclasses import dataclass
from enum import StrEnum

RESEARCH_USE_ONLY = "Research use only – not for diagnostic use"
LOW_RANK_NOTICE = "Only these five conditions are assessed; a low rank does not rule out disease"


class TrainedOn(StrEnum):
    """The data that weights were trained on, from the weakest kind to the strongest."""

    NOTHING = "untrained"
    SYNTHETIC = "synthetic"
    CLINICAL = "clinical"

    @property
    def warning(self) -> str | None:
        """The warning that every output carries; None for clinical data."""
        return {
            TrainedOn.NOTHING: "Untrained: initial weights, the figures mean nothing",
            TrainedOn.SYNTHETIC: "Trained on synthetic data",
            TrainedOn.CLINICAL: None,
        }[self]

    @property
    def notices(self) -> tuple[str, ...]:
        """The sentences that every output carries, the most important first."""
        return (RESEARCH_USE_ONLY, LOW_RANK_NOTICE, *((self.warning,) if self.warning else ()))


@dataclass(frozen=True)
class BundleIdentity:
    """Which weights were used.

    Retraining changes ``version`` and ``weights_sha256``, and thereby every result's UID.
    """

    name: str
    version: str
    weights_sha256: str
    trained_on: TrainedOn
    preprocessing_version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.trained_on})"


@dataclass(frozen=True)
class Provenance:
    """Everything that determines a result.

    ``inputs_sha256``: of the images' contents, and of what the report states of patient and study.
    """

    bundle: BundleIdentity
    code_version: str
    settings_sha256: str
    input_sop_instance_uids: tuple[str, ...]
    inputs_sha256: str

    @property
    def notices(self) -> tuple[str, ...]:
        return self.bundle.trained_on.notices
