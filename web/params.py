"""The parameters of addresses and forms: bounded, without characters that a database refuses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, get_args, get_origin

from fastapi import Depends, Form, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field

from db.models import ReadingState, StudyState
from db.read_models.findings import FindingFilter
from db.read_models.worklist import StudyFilter
from lumbar.spine.anatomy import Condition, Level, Severity
from lumbar.time_window import parse_since, parse_until
from web.auth import TheSite, signed_in, site_of

LARGEST = 2**31 - 1  # id of a row
WITHOUT_NUL = r"^[^\x00]*$"  # PostgreSQL cannot store NUL in a text
MAX_NAME = 64  # characters of a refused parameter's name that an error repeats
TIME_FORMATS = (
    "A date (2026-11-16), a date and time (ISO 8601), or an age (24h, 7d); in the site's time zone "
    "unless it has an offset"
)


def _without_empty(values: object) -> object:
    """Drops the empty value that the choice "any" sends."""
    if not isinstance(values, list):
        return values
    return [value for value in values if value != ""]


def _none_if_empty(value: object) -> object:
    """As ``_without_empty``, for a parameter with at most one value."""
    return None if value == "" else value


def _moment(value: object) -> object:
    """An ISO 8601 time, in UTC.

    Raises:
        ValueError: the text is not such a time; a bare number is not one either.
    """
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("write an ISO 8601 time, such as 2026-11-27T12:00:00Z") from None


Text = Annotated[str, Query(max_length=200)]
Done = Annotated[str, Query(max_length=20)]
Words = Annotated[str, Form(max_length=2000, pattern=WITHOUT_NUL)]
DestinationName = Annotated[str, Path(min_length=1, max_length=64, pattern=WITHOUT_NUL)]
Number = Annotated[int, Path(ge=1, le=LARGEST)]
QuarantineId = Annotated[
    str, Path(min_length=1, max_length=160, description="As the list of what is quarantined has it")
]
Chosen, Moment = BeforeValidator(_without_empty), BeforeValidator(_moment)
NoneIfEmpty = BeforeValidator(_none_if_empty)
# The last image's time, as a page showed it
LastReceived = Annotated[Annotated[datetime, Moment] | None, Form()]
ChosenNumber = Annotated[Annotated[int, Field(ge=1, le=LARGEST)] | None, NoneIfEmpty, Query()]
Scanner = Annotated[str, Query(max_length=64, description="As the worklist names it")]
Since = Annotated[
    str, Query(max_length=200, description=f"Received at this time or later. {TIME_FORMATS}")
]
Until = Annotated[
    str,
    Query(
        max_length=200,
        description=f"Received before this time; a date is included to its end. {TIME_FORMATS}",
    ),
]


@dataclass(frozen=True)
class FindingQuery:
    """The findings that an address requests, with its times as written."""

    only: FindingFilter
    since: str
    until: str
    errors: dict[str, str]  # what is wrong with the times, by parameter


def known_parameters(request: Request) -> None:
    """Refuses a query parameter that the route does not have, and one value too many.

    Both would silently drop a filter. Whoever is not signed in is told that first.

    Raises:
        RequestValidationError: there is such a parameter; the message names the first.
        NotSignedIn: and nobody is signed in.
    """
    known = dict(_query_parameters(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            problem = "there is no such parameter"
        elif len(request.query_params.getlist(name)) > 1 and not known[name]:
            problem = "it can have one value only"
        else:
            continue
        signed_in(request, site_of(request))
        raise RequestValidationError(_described({name[:MAX_NAME]: problem}))


def study_filter(
    site: TheSite,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="Patient's name or number, accession number, or how they begin; or a UID",
        ),
    ] = "",
    state: Annotated[list[StudyState] | None, Chosen, Query()] = None,
    scanner: Scanner = "",
    since: Since = "",
) -> StudyFilter:
    """The studies that an address requests.

    Raises:
        RequestValidationError: ``since`` is not a time.
    """
    errors: dict[str, str] = {}
    only = StudyFilter(q, state or (), scanner, _time(site, "since", since, parse_since, errors))
    if errors:
        raise RequestValidationError(_described(errors))
    return only


def any_study_filter(
    only: Annotated[StudyFilter, Depends(study_filter)],
    reading: Annotated[
        ReadingState | None,
        NoneIfEmpty,
        Query(description="On the worklist, read, or expired: left the worklist unread"),
    ] = None,
    severe: Annotated[bool, Query(description="Only with a severe finding that ranks")] = False,
) -> StudyFilter:
    """The studies that an address requests among all, whether they wait to be read or not."""
    return replace(only, reading=reading, severe=severe)


def finding_query(
    site: TheSite,
    severity: Annotated[list[Severity] | None, Chosen, Query()] = None,
    condition: Annotated[list[Condition] | None, Chosen, Query()] = None,
    level: Annotated[list[Level] | None, Chosen, Query()] = None,
    scanner: Scanner = "",
    since: Since = "",
    until: Until = "",
) -> FindingQuery:
    """The findings that an address requests; times that cannot be parsed become ``errors``."""
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
    """The findings that an address requests.

    Raises:
        RequestValidationError: ``since`` or ``until`` is not a time.
    """
    if query.errors:
        raise RequestValidationError(_described(query.errors))
    return query.only


KnownParametersOnly = Depends(known_parameters)
RequestedStudies = Annotated[StudyFilter, Depends(study_filter)]
AnyRequestedStudies = Annotated[StudyFilter, Depends(any_study_filter)]
RequestedFindings = Annotated[FindingFilter, Depends(finding_filter)]
FindingsQuery = Annotated[FindingQuery, Depends(finding_query)]


def _query_parameters(dependant: Any) -> Iterator[tuple[str, bool]]:
    """The query parameters of a route and of its dependencies: the name, and whether it repeats."""
    for parameter in dependant.query_params:
        yield parameter.alias, _is_list(parameter.field_info.annotation)
    for dependency in dependant.dependencies:
        yield from _query_parameters(dependency)


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _time(
    site: TheSite,
    name: str,
    text: str,
    parse: Callable[[str, tzinfo | None], datetime],
    errors: dict[str, str],
) -> datetime | None:
    """A parameter's time; None if it is empty or wrong, and what is wrong goes to ``errors``."""
    try:
        return parse(text, site.settings.zone) if text else None
    except ValueError as error:
        errors[name] = str(error)
        return None


def _described(errors: dict[str, str]) -> list[dict[str, Any]]:
    """The errors in FastAPI's format."""
    return [
        {"type": "value_error", "loc": ("query", name), "msg": message}
        for name, message in errors.items()
    ]
