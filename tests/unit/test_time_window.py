"""The meaning of `since` and `until` in every notation."""

import time
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.time_window import EXPECTED, parse_since, parse_until

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
BERLIN, TOKYO, SAO_PAULO = map(ZoneInfo, ("Europe/Berlin", "Asia/Tokyo", "America/Sao_Paulo"))
ZONES = st.sampled_from([UTC, BERLIN, TOKYO, SAO_PAULO, ZoneInfo("America/New_York")])
MOMENTS = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(year=1900 + moment.year % 300, day=min(moment.day, 28))
)


def at(*when):
    return datetime(*when, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "since", "until"),
    [
        ("2026-11-16", UTC, at(2026, 11, 16), at(2026, 11, 17)),
        ("2026-11-16", BERLIN, at(2026, 11, 15, 23), at(2026, 11, 16, 23)),
        ("20261116", TOKYO, at(2026, 11, 15, 15), at(2026, 11, 16, 15)),
        # a day of 25 hours, and one whose midnight the clock skips
        ("2026-10-25", BERLIN, at(2026, 10, 24, 22), at(2026, 10, 25, 23)),
        ("2018-11-04", SAO_PAULO, at(2018, 11, 4, 3), at(2018, 11, 5, 2)),
        *(
            (text, BERLIN, at(2026, 11, 16, 11), at(2026, 11, 16, 11))
            for text in ("2026-11-16T12:00", "2026-11-16 12:00", " 2026-11-16T11:00Z ")
        ),
        ("2026-11-16T12:00:00+09:00", BERLIN, at(2026, 11, 16, 3), at(2026, 11, 16, 3)),
        ("24h", BERLIN, NOW - timedelta(days=1), NOW - timedelta(days=1)),
        ("1.5d", BERLIN, NOW - timedelta(hours=36), NOW - timedelta(hours=36)),
    ],
)
def test_a_written_time_means_the_same_moments_in_its_zone(text, zone, since, until):
    assert (parse_since(text, zone, NOW), parse_until(text, zone, NOW)) == (since, until)


@given(MOMENTS, ZONES)
def test_a_moment_with_its_offset_is_parsed_unchanged_in_any_zone(moment, zone):
    moment = moment.astimezone(timezone(timedelta(hours=-5)))
    assert parse_since(moment.isoformat(), zone) == moment == parse_until(moment.isoformat(), zone)


@given(MOMENTS, ZONES)
def test_a_date_is_the_whole_day_of_the_site(moment, zone):
    day = moment.date().isoformat()
    since, until = parse_since(day, zone), parse_until(day, zone)
    within = moment.replace(tzinfo=zone).astimezone(UTC)
    assert since <= within < until
    assert timedelta(hours=20) < until - since < timedelta(hours=28)
    assert since.tzinfo is until.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-16+01:00", "2026-11-16-05:00"),  # dates with an offset, as XML Schema has them
        *("2026-11-16x12:00", "2026-11-16é12:00", "2026-11-16T12", "2026-W47", "2026-W47-1"),
    ],
)
def test_a_notation_that_is_not_announced_is_refused(text):
    for parse in (parse_since, parse_until):
        with pytest.raises(ValueError, match="write a date"):
            parse(text, BERLIN, NOW)


@given(st.text(max_size=30) | st.from_regex(r"-?[0-9]{0,12}\.?[0-9]{0,3}[hdm]?", fullmatch=True))
def test_any_text_is_a_time_or_refused_with_a_message_that_does_not_repeat_it(text):
    for parse in (parse_since, parse_until):
        try:
            moment_or_error = parse(text, BERLIN, NOW)
        except ValueError as error:
            moment_or_error = error
        assert (
            str(moment_or_error) == EXPECTED
            if isinstance(moment_or_error, ValueError)
            else moment_or_error.tzinfo is UTC
        )


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "-5h", "1_0h", "infd", "nand", "1700000000", "9999999d", "2026-13-01", "7w"],
)
def test_text_that_is_not_a_time_is_refused(text):
    with pytest.raises(ValueError, match="write a date"):
        parse_since(text, UTC, NOW)


@pytest.mark.parametrize("text", [date.min.isoformat(), f"{date.min}T00:00"])
def test_a_moment_outside_the_calendar_is_refused(text):
    with pytest.raises(ValueError, match="write a date"):
        parse_since(text, TOKYO)
    with pytest.raises(ValueError, match="write a date"):
        parse_until(date.max.isoformat(), UTC)


def test_without_a_zone_the_machines_zone_is_used(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_since("2026-11-16", None) == parse_since("2026-11-16", TOKYO)
        assert parse_until("2026-11-16T12:00", None) == at(2026, 11, 16, 3)
    finally:
        monkeypatch.undo()
        time.tzset()
