"""The order of the reading worklist. Triage must never hide a patient.

Severe studies come first; then moderate ones together with every study whose result is unclear
(failed, not analysable, uncertain, not fully assessed, not yet analysed, not ranked); then normal
ones. A STAT order goes to the top. Waiting raises any study, but never above a severe one:
otherwise the night's studies would be in order of arrival every morning.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from lumbar.spine.anatomy import Condition, FindingKey

LONG_WAIT = timedelta(hours=4)


class Urgency(IntEnum):
    """Lower values are read earlier."""

    URGENT = 1
    PRIORITY = 2
    ROUTINE = 3


@dataclass(frozen=True)
class TriageFactors:
    """What a study's urgency depends on.

    ``severe`` lists the severe findings of its 25; ``moderate``, ``uncertain`` and
    ``not_assessed`` are the numbers of other findings that matter.
    """

    severe: tuple[FindingKey, ...] = ()
    moderate: int = 0
    uncertain: int = 0
    not_assessed: int = 0
    numbering_uncertain: bool = False  # which disc is L5/S1
    images_uncertain: bool = False  # which of several images is the right one
    # Why there are no findings: not yet analysed, not analysable, or failed. None if there are.
    no_findings_reason: str | None = None
    # The findings belong to an earlier revision, and a later one is waiting for analysis.
    reanalysis_pending: bool = False
    weights_may_rank: bool = True
    stat: bool = False
    waiting: timedelta = timedelta(0)


def urgency(factors: TriageFactors) -> tuple[Urgency, str]:
    """The study's urgency, and the reason in words."""
    value, reason = _by_findings(factors)
    if factors.reanalysis_pending:
        value, reason = min(value, Urgency.PRIORITY), f"{reason}; being analysed again"
    if factors.stat:
        return Urgency.URGENT, f"STAT order; {reason}"
    if factors.waiting >= 2 * LONG_WAIT and value > Urgency.URGENT:
        return Urgency.URGENT, f"waiting for {_hours(factors.waiting)}; {reason}"
    if factors.waiting >= LONG_WAIT and value > Urgency.PRIORITY:
        return Urgency.PRIORITY, f"waiting for {_hours(factors.waiting)}; {reason}"
    return value, reason


def _by_findings(factors: TriageFactors) -> tuple[Urgency, str]:
    if factors.no_findings_reason is not None:
        return Urgency.PRIORITY, factors.no_findings_reason
    if not factors.weights_may_rank:
        return Urgency.PRIORITY, "not ranked: the weights were not trained on clinical images"
    reasons = [f"severe {_names(factors.severe)}"] if factors.severe else []
    counts = {
        "moderate": factors.moderate,
        "uncertain": factors.uncertain,
        "not assessed": factors.not_assessed,
    }
    reasons += [f"{count} {word}" for word, count in counts.items() if count]
    if factors.numbering_uncertain:
        reasons.append("numbering uncertain")
    if factors.images_uncertain:
        reasons.append("images uncertain")
    if factors.severe:
        return Urgency.URGENT, ", ".join(reasons)
    if reasons:
        return Urgency.PRIORITY, ", ".join(reasons)
    return Urgency.ROUTINE, "all normal or mild"


def _names(severe: tuple[FindingKey, ...]) -> str:
    """``L4/L5 spinal canal stenosis and 2 more``; canal stenosis is named before the others."""
    first = min(
        severe, key=lambda key: (key.condition is not Condition.SPINAL_CANAL_STENOSIS, key.level)
    )
    more = f" and {len(severe) - 1} more" if len(severe) > 1 else ""
    return f"{first.level.label} {first.condition.label.lower()}{more}"


def _hours(waiting: timedelta) -> str:
    return f"{int(waiting.total_seconds() // 3600)} h"
