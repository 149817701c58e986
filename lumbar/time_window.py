"""Parses `since` and `until` alike for the page, the REST API and the command line.

A time is written as a date (``2026-11-16``), as a date and time (ISO 8601), or as an age (``24h``,
``7d``). A date, and a time without an offset, are in the site's time zone (``LUMBAR_TIME_ZONE``;
if unset, the machine's).
"""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

EXPECTED = (
    "write a date (2026-11-16), a date and time (2026-11-16T12:00, with or without +01:00), "
    "or an age (24h, 7d)"
)
MAX_LENGTH = 40  # characters

_AGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([hd])")
_HOURS = {"h": 1, "d": 24}
# Of ISO 8601 only what is announced: Python also takes week dates, and any character as separator,
# with which "2026-11-16+01:00" would be one o'clock.
_DATE = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
_DATE_AND_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,6})?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2}(:[0-9]{2})?)?",
    re.IGNORECASE,
)


def parse_since(text: str, zone: tzinfo | None, now: datetime | None = None) -> datetime:
    """The first moment of a window, in UTC; a bare date begins at its midnight.

    ``zone``: the site's time zone; None: the machine's.
    ``now``: the time from which an age counts back, with its offset; None: the present.

    Raises:
        ValueError: the text is not a time; the message says how to write one, without the text.
    """
    return _parse(text, zone, now, timedelta(0))


def parse_until(text: str, zone: tzinfo | None, now: datetime | None = None) -> datetime:
    """The first moment after a window, in UTC; a bare date is included up to its end.

    ``zone`` and ``now``: see ``parse_since``.

    Raises:
        ValueError: the text is not a time; the message says how to write one, without the text.
    """
    return _parse(text, zone, now, timedelta(days=1))


def _parse(text: str, zone: tzinfo | None, now: datetime | None, to_edge: timedelta) -> datetime:
    """``to_edge`` is added to a bare date; the window begins or ends at that day's midnight.

    Raises:
        ValueError: the text is not a time.
    """
    text = text.strip()
    try:
        if age := _AGE.fullmatch(text):
            reference = now or datetime.now(UTC)
            return (reference - timedelta(hours=float(age[1]) * _HOURS[age[2]])).astimezone(UTC)
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text)
            return _in_utc(datetime.combine(day + to_edge, time()), zone)
        if _DATE_AND_TIME.fullmatch(text):
            return _in_utc(datetime.fromisoformat(text.upper()), zone)
    except (ValueError, OverflowError, OSError):
        raise ValueError(EXPECTED) from None
    raise ValueError(EXPECTED)


def _in_utc(moment: datetime, zone: tzinfo | None) -> datetime:
    """In UTC. A midnight that the clocks skip is the end of the gap; a repeated one, the first."""
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)
