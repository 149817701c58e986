"""The order of the reading worklist. Triage must not bury anyone.

Severe first; then moderate together with everything that nobody can vouch for (failed, not analysable, uncertain, not
wholly assessed, not yet analysed, not ranked); then normal. A STAT order goes to the top, and waiting raises any study:
but not above a severe one, or every morning the night's studies would stand in the order of their arrival.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from lumbar.spine.anatomy import Condition, FindingKey

WAITED_LONG = timedelta(hours=4)


class Urgency(IntEnum):
    """Lower is read first."""

    URGENT = 1
    PRIORITY = 2
    ROUTINE = 3


@dataclass(frozen=True)
class Standing:
    """What the order depends on: which of a study's 25 findings are severe, and how many are otherwise notable."""

    severe: tuple[FindingKey, ...] = ()
    moderate: int = 0
    uncertain: int = 0
    not_assessed: int = 0
    numbering_uncertain: bool = False  # which level is which
    unread_because: str | None = None  # no findings: why (not yet analysed, not analysable, failed)
    read_again: bool = (
        False  # the findings are of an earlier revision, and a later one is on its way
    )
    ranks: bool = True  # whether the weights may rank
    stat: bool = False
    waiting: timedelta = timedelta(0)


def urgency(standing: Standing) -> tuple[Urgency, str]:
    """The place in the worklist and the reason for it, in words."""
    place, why = _by_findings(standing)
    if standing.read_again:
        place, why = min(place, Urgency.PRIORITY), f"{why}; being read again"
    if standing.stat:
        return Urgency.URGENT, f"STAT order; {why}"
    if standing.waiting >= 2 * WAITED_LONG and place > Urgency.URGENT:
        return Urgency.URGENT, f"waiting for {_hours(standing.waiting)}; {why}"
    if standing.waiting >= WAITED_LONG and place > Urgency.PRIORITY:
        return Urgency.PRIORITY, f"waiting for {_hours(standing.waiting)}; {why}"
    return place, why


def _by_findings(standing: Standing) -> tuple[Urgency, str]:
    if standing.unread_because is not None:
        return Urgency.PRIORITY, standing.unread_because
    if not standing.ranks:
        return Urgency.PRIORITY, "not ranked: the weights have not learnt from clinical images"
    reasons = [f"severe {_names(standing.severe)}"] if standing.severe else []
    reasons += [
        f"{count} {word}"
        for count, word in (
            (standing.moderate, "moderate"),
            (standing.uncertain, "uncertain"),
            (standing.not_assessed, "not assessed"),
        )
        if count
    ]
    if standing.numbering_uncertain:
        reasons.append("numbering uncertain")
    if standing.severe:
        return Urgency.URGENT, ", ".join(reasons)
    if reasons:
        return Urgency.PRIORITY, ", ".join(reasons)
    return Urgency.ROUTINE, "all normal or mild"


def _names(severe: tuple[FindingKey, ...]) -> str:
    """``L4/L5 spinal canal stenosis and 2 more``; the canal is named first."""
    first = min(
        severe, key=lambda key: (key.condition is not Condition.SPINAL_CANAL_STENOSIS, key.level)
    )
    more = f" and {len(severe) - 1} more" if len(severe) > 1 else ""
    return f"{first.level.label} {first.condition.label.lower()}{more}"


def _hours(waiting: timedelta) -> str:
    return f"{int(waiting.total_seconds() // 3600)} h"
