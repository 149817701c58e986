"""The parameters of addresses and forms: bounded, without characters that no database keeps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any

from fastapi import Depends, Form, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field

from db.models import StudyState
from db.read_models.findings import FindingFilter
from db.read_models.worklist import StudyFilter
from lumbar.spine.anatomy import Condition, Level, Severity
from lumbar.time_window import parse_since, parse_until
from web.auth import TheSite

LARGEST = 2**31 - 1  # id of a row
WITHOUT_NUL = r"^[^\x00]*$"  # which PostgreSQL keeps in no text
MAX_NAME = 64  # characters of a refused parameter's name that an error repeats
TIME_WRITTEN = (
    "A date (2026-11-16), a date and time (ISO 8601), or an age (24h, 7d); in the site's time zone "
    "where it names no offset"
)


def _chosen(values: object) -> object:
    """A select's "any" sends an empty word."""
    if not isinstance(values, list):
        return values
    return [value for value in values if value != ""]


def _one(value: object) -> object:
    """Likewise, where at most one is chosen."""
    return None if value == "" else value


def _moment(value: object) -> object:
    """A moment as ISO 8601 writes it, in UTC.

    Raises:
        ValueError: the text is none; a bare number is none either.
    """
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("a time as ISO 8601 writes it, like 2026-11-27T12:00:00Z") from None


Text = Annotated[str, Query(max_length=200)]
Done = Annotated[str, Query(max_length=20)]
Words = Annotated[str, Form(max_length=2000, pattern=WITHOUT_NUL)]
Number = Annotated[int, Path(ge=1, le=LARGEST)]
Chosen, Moment = BeforeValidator(_chosen), BeforeValidator(_moment)
# The last image's time, as a page showed it
LastReceived = Annotated[Annotated[datetime, Moment] | None, Form()]
ChosenNumber = Annotated[
    Annotated[int, Field(ge=1, le=LARGEST)] | None, BeforeValidator(_one), Query()
]
Scanner = Annotated[str, Query(max_length=64, description="As the worklist names it")]
Since = Annotated[
    str, Query(max_length=200, description=f"Received at this time or later. {TIME_WRITTEN}")
]
Until = Annotated[
    str,
    Query(
        max_length=200,
        description=f"Received before this time; a date is included to its end. {TIME_WRITTEN}",
    ),
]


@dataclass(frozen=True)
class FindingQuery:
    """The findings that an address asks for, and how it writes their times."""

    only: FindingFilter
    since: str
    until: str
    errors: dict[str, str]  # what is wrong with the times, by parameter


def known_parameters(request: Request) -> None:
    """Refuses an address with a query parameter that its route does not have.

    Raises:
        RequestValidationError: naming the first of them.
    """
    known = set(_query_names(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            errors = {name[:MAX_NAME]: "there is no such parameter"}
            raise RequestValidationError(_described(errors))


def study_filter(
    site: TheSite,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="Beginnings of name, patient's or accession number, or a UID",
        ),
    ] = "",
    state: Annotated[list[StudyState] | None, Chosen, Query()] = None,
    scanner: Scanner = "",
    since: Since = "",
) -> StudyFilter:
    """Which studies an address asks for.

    Raises:
        RequestValidationError: ``since`` is no time.
    """
    errors: dict[str, str] = {}
    only = StudyFilter(q, state or (), scanner, _time(site, "since", since, parse_since, errors))
    if errors:
        raise RequestValidationError(_described(errors))
    return only


def finding_query(
    site: TheSite,
    severity: Annotated[list[Severity] | None, Chosen, Query()] = None,
    condition: Annotated[list[Condition] | None, Chosen, Query()] = None,
    level: Annotated[list[Level] | None, Chosen, Query()] = None,
    scanner: Scanner = "",
    since: Since = "",
    until: Until = "",
) -> FindingQuery:
    """Which findings an address asks for; times that cannot be read are left out, as ``errors``."""
    errors: dict[str, str] = {}
    only = FindingFilter(
        severity or (),
        condition or (),
        level or (),
        scanner,
        _time(site, "since", since, parse_since, errors),
        _time(site, "until", until, parse_until, errors),
    )
    return FindingQuery(only, since, until, errors)


def finding_filter(query: Annotated[FindingQuery, Depends(finding_query)]) -> FindingFilter:
    """Which findings an address asks for.

    Raises:
        RequestValidationError: ``since`` or ``until`` is no time.
    """
    if query.errors:
        raise RequestValidationError(_described(query.errors))
    return query.only


OnlyKnown = Depends(known_parameters)
OfStudies = Annotated[StudyFilter, Depends(study_filter)]
OfFindings = Annotated[FindingFilter, Depends(finding_filter)]
FindingsQuery = Annotated[FindingQuery, Depends(finding_query)]


def _query_names(dependant: Any) -> Iterator[str]:
    """Of a route and of everything it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _query_names(dependency)


def _time(
    site: TheSite,
    name: str,
    text: str,
    parse: Callable[[str, tzinfo | None], datetime],
    errors: dict[str, str],
) -> datetime | None:
    """A parameter's time; None where it is empty, or wrong: what is wrong goes to ``errors``."""
    try:
        return parse(text, site.settings.zone) if text else None
    except ValueError as error:
        errors[name] = str(error)
        return None


def _described(errors: dict[str, str]) -> list[dict[str, Any]]:
    """As FastAPI describes what it refuses."""
    return [
        {"type": "value_error", "loc": ("query", name), "msg": message}
        for name, message in errors.items()
    ]
