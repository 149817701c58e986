"""A flood of audit events: each is in exactly one line, and the lines are few."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from db.audit import Participant
from db.audit_writer import FIRST, LINES_PER_S, MAX_LINES, OTHERS, PERIOD_S, Flood, Line

EVENTS = ("sign_in.refused", "token.refused")
tries = st.lists(
    st.tuples(
        st.sampled_from(EVENTS),
        st.sampled_from(["", "anna", "ben"]),
        st.integers(1, 3),
        st.floats(0, 2 * PERIOD_S),  # seconds since the one before
    ),
    max_size=60,
)


def line(event="sign_in.refused", name="anna", address="10.0.0.1", study=""):
    return Line(event, Participant(name, address), study=study)


@given(tries)
def test_every_event_is_in_exactly_one_line_and_nobody_elses(happened):
    flood, now = Flood(), 0.0
    expected, found = Counter(), Counter()
    for event, name, host, wait_s in happened:
        now += wait_s
        lines = flood.end(now) if flood.has_ended(now) else []
        tried = line(event, name, f"10.0.0.{host}")
        expected[event, tried.actor] += 1
        alone = flood.add(tried, now)
        for each in lines + ([alone] if alone else []):
            found[each.event, each.actor] += each.times
    for each in flood.end(now):
        found[each.event, each.actor] += each.times
    assert found == expected


def test_the_first_few_have_lines_and_the_rest_is_one_line_with_their_number():
    flood = Flood()
    alone = [each for _ in range(990) if (each := flood.add(line(), 5.0))]
    assert len(alone) == FIRST
    assert not flood.has_ended(5.0 + PERIOD_S - 1)
    assert flood.has_ended(5.0 + PERIOD_S)
    (summed,) = flood.end(5.0 + PERIOD_S)
    assert (summed.actor, summed.times) == (Participant("anna", "10.0.0.1"), 990 - FIRST)
    assert summed.detail == {"seconds": 60}
    assert flood.idle
    assert flood.end(70.0) == []
    assert flood.add(line(), 80.0)  # in the next period there are lines again


def test_a_hundred_thousand_names_or_addresses_make_few_lines_and_none_is_lost():
    flood = Flood()
    lines = []
    for number in range(100_000):
        now = number / 100  # a thousand seconds
        if flood.has_ended(now):
            lines += flood.end(now)
        tried = line(name=f"name {number}" if number % 2 else "", address=f"10.1.{number}")
        if (alone := flood.add(tried, now)) is not None:
            lines.append(alone)
    lines += flood.end(1000.0)
    assert sum(each.times for each in lines) == 100_000
    periods = 1000 / PERIOD_S + 1
    assert len(lines) <= MAX_LINES + 1000 * LINES_PER_S + periods
    assert OTHERS in {each.actor for each in lines}
    assert len(flood._written) + len(flood._counted) == 0


def test_somebody_who_tries_many_studies_is_named_when_the_lines_are_spent():
    flood = Flood()
    alone = [
        each for number in range(1000) if (each := flood.add(line(study=f"1.2.{number}"), 0.0))
    ]
    assert len({each.study for each in alone}) == len(alone) > 100
    (summed,) = flood.end(60.0)
    assert (summed.actor.name, summed.times) == ("anna", 1000 - len(alone))


def test_after_a_flood_there_are_lines_again_in_time():
    flood = Flood()
    for number in range(2 * MAX_LINES):
        flood.add(line(address=f"10.1.{number}"), 0.0)
    flood.end(60.0)
    assert flood.add(line(), 61.0) is None
    flood.end(3600.0)
    assert flood.add(line(), 3601.0) is not None
