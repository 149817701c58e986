"""Which reports a study has, and which of them a new one replaces.

A report replaces the ones that it names as its predecessors, and those that they replace. Of the
reports that a destination has, the ones that no other one there replaces are its current ones; they
are what the next report names, so that every destination has one current report afterwards.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Delivery, Job, JobKind, JobState, ReportRow


def newest_report(session: Session, study_id: int) -> ReportRow | None:
    """A study's newest report, ours or one that a destination was found to hold."""
    newest = select(ReportRow).where(ReportRow.study_id == study_id)
    return session.scalar(newest.order_by(ReportRow.id.desc()).limit(1))


def next_number(session: Session, study_id: int) -> int:
    """The Instance Number of a study's next report, higher than those of all earlier ones."""
    highest = select(func.max(ReportRow.number)).where(ReportRow.study_id == study_id)
    return 1 + (session.scalar(highest) or 0)


def predecessors_of(session: Session, report: ReportRow) -> list[ReportRow]:
    """The reports that a stored one names as its predecessors, the oldest first."""
    return _rows(session, report.predecessor_ids or [])


def current_reports(session: Session, study_id: int) -> list[ReportRow]:
    """The current report of each destination, or several; the oldest first.

    One that is being sent counts, one that never left does not.
    """
    history = History.of(session, study_id)
    held: dict[str, set[int]] = defaultdict(set)
    deliveries = select(Delivery.destination, Delivery.report_id).where(
        Delivery.report_id.in_(history.predecessors)
    )
    leaving = select(Job.destination, Job.report_id).where(
        Job.study_id == study_id, Job.kind == JobKind.DELIVER, Job.state == JobState.RUNNING
    )
    for statement in (deliveries, leaving):
        for destination, report_id in session.execute(statement):
            if report_id is not None:
                held[destination].add(report_id)
    current = {report for there in held.values() for report in history.current(there)}
    return _rows(session, current)


@dataclass(frozen=True)
class History:
    """Which reports of a study name which as their predecessors, by their ids."""

    predecessors: Mapping[int, Collection[int]]

    @classmethod
    def of(cls, session: Session, study_id: int) -> "History":
        rows = session.execute(
            select(ReportRow.id, ReportRow.predecessor_ids).where(ReportRow.study_id == study_id)
        )
        return cls({report_id: named or [] for report_id, named in rows})

    def replaced_by(self, report_id: int) -> set[int]:
        """What a report replaces, itself not included."""
        replaced: set[int] = set()
        named = list(self.predecessors.get(report_id, ()))
        while named:
            if (predecessor := named.pop()) not in replaced:
                replaced.add(predecessor)
                named += self.predecessors.get(predecessor, ())
        return replaced - {report_id}

    def current(self, held: Iterable[int]) -> set[int]:
        """Those of the reports held somewhere that none of the others replaces."""
        held = set(held)
        return held - {old for report in held for old in self.replaced_by(report)}


def _rows(session: Session, ids: Collection[int]) -> list[ReportRow]:
    named = ReportRow.id.in_(ids)
    return list(session.scalars(select(ReportRow).where(named).order_by(ReportRow.id)))
