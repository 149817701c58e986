"""Templates, and how values are written on a page."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from db import disk_usage
from db.models import Permission
from db.read_models.study_queries import other_objects_in_words
from db.read_models.worklist import counted
from lumbar import VERSION
from lumbar.errors import Transient
from lumbar.spine.anatomy import Condition, Level, Severity
from lumbar.spine.provenance import LOW_RANK_NOTICE, RESEARCH_USE_ONLY
from web.auth import CSRF_FIELD, site_of

CONFIRMATIONS = {  # what a page says after an action, by the `done` of its address
    "requeued": "The study is queued again.",
    "completed": "The study is queued.",
    "read": "The study is marked as read and has left the worklist.",
    "unread": "The study is marked as unread.",
    "reviewed": "Your review is saved.",
    "retried": "The job will be retried now.",
    "all retried": "The destination's jobs will be retried now.",
    "all cancelled": "The destination's jobs are cancelled.",
    "rerouted": "The jobs go to the other destination.",
    "cancelled": "The job is cancelled.",
    "sent": "The report will be sent again.",
    "deleted": "The study is deleted.",
    "corrected": "The study is taken over as its newer copies state it, and is analysed again.",
    "released": "The instance is released. Its study is analysed again if its images change.",
    "dropped": "The instance is deleted.",
    "saved": "The change is saved.",
    "ended": "Ended: that browser has to sign in again.",
}
SEVERITY_CLASS = {
    Severity.SEVERE: "severe",
    Severity.MODERATE: "moderate",
    Severity.NORMAL_MILD: "normal",
}
SHORT = {
    Condition.SPINAL_CANAL_STENOSIS: "Canal",
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: "Left foramen",
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: "Right foramen",
    Condition.LEFT_SUBARTICULAR_STENOSIS: "Left recess",
    Condition.RIGHT_SUBARTICULAR_STENOSIS: "Right recess",
}
ACROSS = tuple(SHORT)  # columns of the grid of findings


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Renders a page for the user who is signed in, if any."""
    actor = getattr(request.state, "actor", None)
    hidden = Markup('<input type="hidden" name="{}" value="{}">').format(
        CSRF_FIELD, actor.csrf_token if actor else ""
    )
    shared = {
        "actor": actor,
        "path": request.url.path,
        "root": site_of(request).settings.web_root,
        "may": actor.may if actor else lambda permission: False,
        "csrf": lambda: hidden,
        "disk_refusal": _disk_refusal(request) if actor else None,
    }
    return _templates.TemplateResponse(request, template, shared | values, status_code=status)


def _disk_refusal(request: Request) -> str | None:
    """What a full disk prevents; a page is shown if that cannot be found out."""
    site = site_of(request)
    try:
        alerts = disk_usage.refusal(site), disk_usage.home_full(site)
        return " ".join(filter(None, alerts)) or None
    except Transient:
        return None


def link(path: str, query: Mapping[str, object]) -> str:
    """A local address with the query's parameters; empty ones are left out."""
    parameters = {name: value for name, value in query.items() if value not in (None, "", [], ())}
    return f"{path}?{urlencode(parameters, doseq=True)}" if parameters else path


def person(name: str) -> str:
    """A PN value for display: ``Doe^Jane`` as ``Doe, Jane`` (PS3.5 6.2.1)."""
    family, _, rest = name.split("=")[0].partition("^")
    given_names = " ".join(part for part in rest.split("^") if part)
    return f"{family}, {given_names}" if given_names else family


def day(text: str) -> str:
    """A DA value for display: ``20261127`` as ``2026-11-27``; anything else unchanged."""
    try:
        return date.fromisoformat(text).isoformat() if len(text) == 8 else text
    except ValueError:
        return text


def span(seconds: float) -> str:
    """A duration as ``3 h 05 min``; from two days on in whole days."""
    minutes = int(seconds // 60)
    if minutes >= 48 * 60:
        return f"{minutes // 1440} days"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute: ``2026-11-27 14:05 UTC``."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if value else ""


def count(number: int, singular: str, plural: str = "") -> str:
    """A number of things: ``1 image``, ``2 images``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def words(value: str) -> str:
    return str(value).replace("_", " ")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "person": person,
        "day": day,
        "span": span,
        "moment": moment,
        "words": words,
    }
    environment.globals |= {
        "RESEARCH_USE_ONLY": RESEARCH_USE_ONLY,
        "LOW_RANK_NOTICE": LOW_RANK_NOTICE,
        "VERSION": VERSION,
        "SEVERITY_CLASS": SEVERITY_CLASS,
        "SHORT": SHORT,
        "ACROSS": ACROSS,
        "Severity": Severity,
        "Condition": Condition,
        "Level": Level,
        "Permission": Permission,
        "count": count,
        "counted": counted,
        "gib": disk_usage.in_words,
        "other_objects": other_objects_in_words,
    }
    return environment


_templates = Jinja2Templates(env=_environment())
