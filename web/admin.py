"""The database tables for administrators, read-only: rows to view, filter and save as CSV.

sqladmin renders them. Studies, jobs and users are changed on pages of their own, with an audit row.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import new_class
from typing import Any, ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqladmin import Admin, ModelView
from sqladmin.authentication import AuthenticationBackend
from sqladmin.filters import StaticValuesFilter
from starlette.exceptions import HTTPException

from db.actors import Actor
from db.context import SiteContext
from db.models import (
    AuditEvent,
    Bundle,
    Delivery,
    Explanation,
    FindingRow,
    Job,
    JobKind,
    JobState,
    Permission,
    ReportRow,
    Review,
    Study,
    StudyState,
    Table,
    Tombstone,
)
from db.read_models import statistics
from lumbar.spine.anatomy import Condition, Level, Severity
from web import login
from web.audit_trail import MAX_DIGITS, AuditTrail
from web.auth import by_browser
from web.csv_export import as_csv
from web.params import LARGEST
from web.prefix import RelativeLinks

ADDRESS = "/admin"
MAX_EXPORTED = 100_000  # rows of one file
MAX_COUNTED = 10_000  # rows; beyond that the number of pages is not counted
# sqladmin's own scripts and styles only; some of its styles are inline.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ALL_ROWS = "__all"  # sqladmin's value of a filter that is not used
ROW_NUMBER = re.compile("[1-9][0-9]{0,9}")
PLURALS = {Study: "Studies", Delivery: "Deliveries", AuditEvent: "Audit events"}


class _ReadOnlyView(ModelView):
    """A table that can only be viewed, the newest rows first."""

    can_create = can_edit = can_delete = False
    export_types: ClassVar[list[str]] = ["csv"]
    export_max_rows = MAX_EXPORTED
    page_size = 50
    column_list = "__all__"
    column_details_list = "__all__"

    async def count(self, request: Request, stmt: Any = None) -> int:
        query = self.list_query(request) if stmt is None else stmt.get_final_froms()[0].element
        site: SiteContext = request.app.state.site
        return await run_in_threadpool(_count_rows, site, query)

    def _stmt_by_identifier(self, identifier: str) -> Any:
        """The query for a row; sqladmin's own takes whatever ``int`` does, and fails otherwise.

        Raises:
            HTTPException: 404, no row has such a number.
        """
        if not ROW_NUMBER.fullmatch(identifier) or int(identifier) > LARGEST:
            raise HTTPException(404)
        return super()._stmt_by_identifier(identifier)

    async def get_object_filepath(self, identifier: str, column_name: str) -> Path:
        """No column names a file.

        Raises:
            HTTPException: 404, always.
        """
        raise HTTPException(404)

    async def export_data(
        self, data: list[Any], export_type: str = "csv", request: Request | None = None
    ) -> Any:
        names = self._export_prop_names
        return as_csv(f"{self.identity}.csv", names, (_csv_record(row, names) for row in data))


class _EnumFilter(StaticValuesFilter):
    """A filter that refuses what none of its values is."""

    async def get_filtered_query(self, query: Any, value: Any, model: Any) -> Any:
        """The rows of that value.

        Raises:
            HTTPException: 400, there is no such value.
        """
        if value not in [ALL_ROWS, *(value for value, _ in self.values)]:
            raise HTTPException(400, f"{self.parameter_name} has no such value")
        return await super().get_filtered_query(query, value, model)


def _count_rows(site: SiteContext, query: Any) -> int:
    with site.database.reading() as session:
        return statistics.count_rows(session, query, MAX_COUNTED)


def _csv_record(row: object, names: Sequence[str]) -> dict[str, object]:
    return {name: _csv_value(getattr(row, name)) for name in names}


def _csv_value(value: object) -> object:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _filter_values(enum: type[StrEnum]) -> list[tuple[str, str]]:
    return [(member.value, member.value.replace("_", " ")) for member in enum]


_FILTERS: dict[type[Table], Sequence[tuple[Any, type[StrEnum]]]] = {
    Study: [(Study.state, StudyState)],
    FindingRow: [
        (FindingRow.severity, Severity),
        (FindingRow.condition, Condition),
        (FindingRow.level, Level),
    ],
    Job: [(Job.state, JobState), (Job.kind, JobKind)],
    Delivery: [],
    ReportRow: [],
    Review: [(Review.severity, Severity)],
    Bundle: [],
    Explanation: [],
    Tombstone: [],
    AuditEvent: [],
}


def _view(table: type[Table]) -> type[ModelView]:
    """sqladmin's view of a table: all columns, with filters for those of ``_FILTERS``."""
    columns = [column.key for column in table.__table__.columns]
    name = table.__name__.removesuffix("Row")
    attributes = {
        "name_plural": PLURALS.get(table, f"{name}s"),
        "column_list": columns,
        "column_details_list": columns,
        "column_export_list": columns,
        "column_default_sort": ("id", True),
        "column_sortable_list": ["id"],
        "column_filters": [
            _EnumFilter(column, _filter_values(enum)) for column, enum in _FILTERS[table]
        ],
    }
    view: type[ModelView] = new_class(
        f"{name}View",
        (_ReadOnlyView,),
        {"model": table},
        lambda namespace: namespace.update(attributes),
    )
    view.name = view.name.removesuffix(" Row")
    view.identity = view.identity.removesuffix("-row")
    return view


_VIEWS = [_view(table) for table in _FILTERS]
_TABLES = {view.identity for view in _VIEWS}


class _AdministratorsOnly(AuthenticationBackend):
    """Admits administrators who are signed in to the page; there is no other session."""

    def __init__(self) -> None:
        self.middlewares = []

    async def login(self, request: Request) -> bool:
        return False

    async def logout(self, request: Request) -> Response | bool:
        return RedirectResponse("/", 303)

    async def authenticate(self, request: Request) -> Response | bool:
        site: SiteContext = request.app.state.site
        trail: AuditTrail = request.app.state.trail
        actor = await run_in_threadpool(by_browser, request, site)
        if actor is None:
            return RedirectResponse(login.address(request), 303)
        request.state.participant = actor.participant
        if not actor.may(Permission.ADMINISTER):
            trail.record_refusal("request.refused", request)
            return Response(
                "Only administrators may view the tables.\n", 403, media_type="text/plain"
            )
        await run_in_threadpool(_record, trail, actor, request.path_params)
        return True


def _sign_in() -> Response:
    return RedirectResponse("/sign-in", 303)


def _record(trail: AuditTrail, actor: Actor, parameters: Mapping[str, str]) -> None:
    """Records which table, or which row of it, is seen, or saved as a file."""
    identity = parameters.get("identity")
    what: dict[str, Any] = {"table": identity if identity in _TABLES else "all"}
    row = str(parameters.get("pk", ""))
    if row.isdecimal() and len(row) <= MAX_DIGITS:
        what["row"] = int(row)
    if "export_type" in parameters:
        trail.record("tables.exported", actor.participant, **what)
    else:
        trail.record_view("tables.seen", actor.participant, **what)


def mount(app: FastAPI, site: SiteContext) -> None:
    """Adds the tables to the application under ``ADDRESS``."""
    # sqladmin has a form of its own, which nobody's password is meant for
    own_form, methods = f"{ADDRESS}/login", ["GET", "POST"]
    app.add_api_route(own_form, _sign_in, methods=methods, include_in_schema=False)
    admin = Admin(
        app,
        engine=site.database.engine.execution_options(reads_only=True),
        base_url=ADDRESS,
        title="Research use only",
        favicon_url=f"{site.settings.web_root}/static/icon.svg",
        authentication_backend=_AdministratorsOnly(),
    )
    admin.admin.state = app.state
    for view in _VIEWS:
        admin.add_view(view)
    admin.admin.add_middleware(RelativeLinks, prefix=site.settings.web_root)
