"""What comes in addresses and forms: bounded, and nothing in it that a database would not take."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Form, Path, Query
from pydantic import BeforeValidator, Field

from db.models import StudyState
from db.read_models.worklist import StudyFilter

LARGEST = 2**31 - 1  # number of a row
WITHOUT_NUL = r"^[^\x00]*$"  # which PostgreSQL keeps in no text


def _chosen(values: object) -> object:
    """A select's "any" sends an empty word."""
    return [value for value in values if value != ""] if isinstance(values, list) else values


def _one(value: object) -> object:
    """Likewise, where one is chosen at most."""
    return None if value == "" else value


def _moment(value: object) -> object:
    """A time as ISO 8601 writes it, in UTC; a bare number is none."""
    if not isinstance(value, str):
        return value
    try:
        given = datetime.fromisoformat(value)
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("a time as ISO 8601 writes it, like 2026-11-27T12:00:00Z") from None


def study_filter(
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="Beginnings of name, patient's or accession number, or a UID",
        ),
    ] = "",
    state: Annotated[list[StudyState] | None, BeforeValidator(_chosen), Query()] = None,
    scanner: Annotated[str, Query(max_length=64)] = "",
    since: Annotated[
        datetime | None,
        BeforeValidator(_moment),
        Query(description="Then or later; UTC where no zone is given"),
    ] = None,
) -> StudyFilter:
    """Which studies an address asks for."""
    return StudyFilter(q, state or (), scanner, since)


OfStudies = Annotated[StudyFilter, Depends(study_filter)]
Text = Annotated[str, Query(max_length=200)]
Done = Annotated[str, Query(max_length=20)]
Words = Annotated[str, Form(max_length=2000, pattern=WITHOUT_NUL)]
Number = Annotated[int, Path(ge=1, le=LARGEST)]
Chosen, Moment = BeforeValidator(_chosen), BeforeValidator(_moment)
Seen = Annotated[
    Annotated[datetime, Moment] | None, Form()
]  # the last image's time, as a page showed it
ChosenNumber = Annotated[
    Annotated[int, Field(ge=1, le=LARGEST)] | None, BeforeValidator(_one), Query()
]
