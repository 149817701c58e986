"""What the web application adds to the audit trail: what users view, and what they are refused."""

from typing import Any

from fastapi import Request

from db import audit
from db.audit import Participant
from db.audit_writer import AuditWriter, Line
from db.context import SiteContext
from lumbar.audit_messages import Outcome
from lumbar.closing import Closing
from lumbar.throttle import Throttle

VIEW_PERIOD_S = 600.0  # one event per person, address and thing viewed
MAX_VIEWS = 10_000
SUMMED_AFTER_S = 60.0  # of what is recorded each time
MAX_DIGITS = 10  # of a row's id
NUMBERED = ("job", "token", "finding_id")  # the parts of addresses that are ids of rows


class AuditTrail(Closing):
    """The audit trail as requests write it; one per process."""

    def __init__(self, site: SiteContext) -> None:
        self._site = site
        self._views = Throttle(VIEW_PERIOD_S, MAX_VIEWS)
        self._recorded = Throttle(SUMMED_AFTER_S, MAX_VIEWS)
        self._writer = AuditWriter(site.database)

    def record(
        self, event: str, actor: Participant, study_id: int | None = None, **detail: Any
    ) -> None:
        """Records what is about to be shown or done, each time.

        What the same person does again within a minute is left to the thread, which sums floods.

        Raises:
            Transient: the row cannot be written; then nothing may be shown.
        """
        same = (event, actor, study_id, *detail.items())
        if study_id is None and not self._recorded.due(same):
            self._writer.note(Line(event, actor, detail=detail), stranger=False)
            return
        with self._site.database.transaction() as session:
            audit.note(session, event, actor, study_id=study_id, **detail)
        self._recorded.record(same)

    def record_view(
        self, event: str, actor: Participant, study_id: int | None = None, **detail: Any
    ) -> None:
        """Records a view of patients' data, once in ten minutes per person and thing.

        The view counts as recorded only once its row is committed.

        Raises:
            Transient: the row cannot be written; then nothing may be shown.
        """
        view = (event, actor, study_id, *detail.items())
        if self._views.due(view):
            self.record(event, actor, study_id, **detail)
            self._views.record(view)

    def record_visit(self, event: str, actor: Participant) -> None:
        """The same for what names no patient: it is shown though the disk may be full."""
        if self._views.claim((event, actor)):
            self._writer.note(Line(event, actor), stranger=False)

    def record_stranger(self, event: str, participant: Participant, **detail: Any) -> None:
        """Records that somebody is refused who has not proved who they are."""
        line = Line(event, participant, Outcome.REFUSED, detail=detail)
        self._writer.note(line, stranger=True)

    def record_refusal(self, event: str, request: Request, **detail: Any) -> None:
        """Records a refused request: what it asked for, without the text that it contains."""
        actor = getattr(request.state, "participant", None)
        route = request.scope.get("route")
        parameters = request.path_params
        numbers = {name.removesuffix("_id"): parameters.get(name, "") for name in NUMBERED}
        detail |= {name: int(text) for name, text in numbers.items() if _is_number(str(text))}
        if parameters.get("name") in self._site.settings.destinations:
            detail["destination"] = parameters["name"]
        line = Line(
            event,
            actor or Participant("", address_of(request)),
            Outcome.REFUSED,
            study=str(parameters.get("uid", "")),
            user=str(parameters.get("name", "")),
            detail={"request": f"{request.method} {getattr(route, 'path', '')}"} | detail,
        )
        self._writer.note(line, stranger=actor is None)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_DIGITS


def address_of(request: Request) -> str:
    """Whoever made the request; the client's address where our proxy has forwarded it."""
    return request.client.host if request.client else "unknown"
