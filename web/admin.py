"""The tables as they stand, for administrators: rows to look at, narrow down and save. Nothing is changed here.

sqladmin shows them; what is done to studies, jobs and users has its own pages, which audit it.
"""

from collections.abc import Sequence
from enum import StrEnum
from types import new_class
from typing import Any, ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqladmin import Admin, ModelView
from sqladmin.authentication import AuthenticationBackend
from sqladmin.filters import StaticValuesFilter

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
from web.auth import AuditTrail, by_browser
from web.csv_export import as_csv

ADDRESS = "/admin"
MAX_SAVED = 100_000  # rows of one file
MAX_COUNTED = 10_000  # rows that the pages are counted of
# Its own scripts and styles only; some of its styles stand in the elements.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


PLURAL = {Study: "Studies", Delivery: "Deliveries", AuditEvent: "Audit events"}


class _Rows(ModelView):
    """A table that is only looked at, the newest rows first."""

    can_create = can_edit = can_delete = False
    export_types: ClassVar[list[str]] = ["csv"]
    export_max_rows = MAX_SAVED
    page_size = 50
    column_list = "__all__"
    column_details_list = "__all__"

    async def count(self, request: Request, stmt: Any = None) -> int:
        asked = self.list_query(request) if stmt is None else stmt.get_final_froms()[0].element
        site: SiteContext = request.app.state.site
        return await run_in_threadpool(_count, site, asked)

    async def export_data(
        self, data: list[Any], export_type: str = "csv", request: Request | None = None
    ) -> Any:
        names = self._export_prop_names
        records = ({name: _plain(getattr(row, name)) for name in names} for row in data)
        return as_csv(f"{self.identity}.csv", names, records)


def _count(site: SiteContext, asked: Any) -> int:
    with site.database.reading() as session:
        return statistics.count_rows(session, asked, MAX_COUNTED)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _values(kind: type[StrEnum]) -> list[tuple[str, str]]:
    return [(member.value, member.value.replace("_", " ")) for member in kind]


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
    columns = [column.key for column in table.__table__.columns]
    described = {
        "name_plural": PLURAL.get(table, f"{table.__name__}s"),
        "column_list": columns,
        "column_details_list": columns,
        "column_export_list": columns,
        "column_default_sort": ("id", True),
        "column_sortable_list": ["id"],
        "column_filters": [
            StaticValuesFilter(column, _values(kind)) for column, kind in _FILTERS[table]
        ],
    }
    made: type[ModelView] = new_class(
        f"{table.__name__}Rows", (_Rows,), {"model": table}, lambda own: own.update(described)
    )
    return made


class _OurUsers(AuthenticationBackend):
    """Whoever is signed in to the page as an administrator; there is no session besides the page's own."""

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
        if not actor.may(Permission.ADMINISTER):
            return Response(
                "Only administrators may look at the tables.\n", 403, media_type="text/plain"
            )
        await run_in_threadpool(trail.record_view, "tables.seen", actor.name)
        return True


def mount(app: FastAPI, site: SiteContext) -> None:
    """Adds the tables to the application."""
    admin = Admin(
        app,
        engine=site.database.engine.execution_options(reads_only=True),
        base_url=ADDRESS,
        title="Research use only",
        authentication_backend=_OurUsers(),
    )
    admin.admin.state = app.state
    for table in _FILTERS:
        admin.add_view(_view(table))
