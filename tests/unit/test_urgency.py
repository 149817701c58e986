"""Triage must not bury anyone."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.spine.anatomy import Condition, FindingKey, Level
from lumbar.spine.urgency import WAITED_LONG, Standing, Urgency, urgency

CANAL = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
RECESS = FindingKey(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L1_L2)

standings = st.builds(
    Standing,
    severe=st.lists(st.sampled_from([CANAL, RECESS]), unique=True).map(tuple),
    moderate=st.integers(0, 25),
    uncertain=st.integers(0, 25),
    not_assessed=st.integers(0, 25),
    numbering_uncertain=st.booleans(),
    unread_because=st.none() | st.just("failed: the worker was lost"),
    ranks=st.booleans(),
    read_again=st.booleans(),
    stat=st.booleans(),
    waiting=st.timedeltas(timedelta(0), timedelta(days=2)),
)


def test_severe_comes_first_and_names_the_canal():
    assert urgency(Standing(severe=(RECESS, CANAL))) == (
        Urgency.URGENT,
        "severe L4/L5 spinal canal stenosis and 1 more",
    )


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (Standing(moderate=2), "2 moderate"),
        (Standing(uncertain=1), "1 uncertain"),
        (Standing(not_assessed=10), "10 not assessed"),
        (Standing(numbering_uncertain=True), "numbering uncertain"),
        (Standing(unread_because="not analysable: no axial T2"), "not analysable: no axial T2"),
        (
            Standing(severe=(CANAL,), ranks=False),
            "not ranked: the weights have not learnt from clinical images",
        ),
    ],
)
def test_what_nobody_can_vouch_for_stands_with_the_moderate(standing, why):
    assert urgency(standing) == (Urgency.PRIORITY, why)


def test_a_study_that_is_wholly_normal_waits_its_turn():
    assert urgency(Standing()) == (Urgency.ROUTINE, "all normal or mild")


@given(standings)
def test_a_stat_order_is_always_first(standing):
    assert urgency(Standing(**{**vars(standing), "stat": True}))[0] is Urgency.URGENT


@given(standings, st.timedeltas(timedelta(0), timedelta(days=2)))
def test_waiting_longer_never_lowers_a_study(standing, longer):
    later = Standing(**{**vars(standing), "waiting": standing.waiting + longer})
    assert urgency(later)[0] <= urgency(standing)[0]


@given(standings)
def test_nobody_waits_for_ever(standing):
    waited = Standing(**{**vars(standing), "waiting": 2 * WAITED_LONG})
    assert urgency(waited)[0] is Urgency.URGENT


@given(standings)
def test_only_a_study_read_wholly_and_surely_as_normal_is_last(standing):
    if urgency(standing)[0] is Urgency.ROUTINE:
        assert standing.unread_because is None
        assert standing.ranks
        assert not standing.read_again
        assert not standing.numbering_uncertain
        assert (standing.severe, standing.moderate, standing.uncertain, standing.not_assessed) == (
            (),
            0,
            0,
            0,
        )
