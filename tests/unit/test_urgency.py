"""Triage must never hide a patient."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.spine.anatomy import Condition, FindingKey, Level
from lumbar.spine.urgency import LONG_WAIT, TriageFactors, Urgency, urgency

CANAL = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
RECESS = FindingKey(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L1_L2)

any_factors = st.builds(
    TriageFactors,
    severe=st.lists(st.sampled_from([CANAL, RECESS]), unique=True).map(tuple),
    moderate=st.integers(0, 25),
    uncertain=st.integers(0, 25),
    not_assessed=st.integers(0, 25),
    numbering_uncertain=st.booleans(),
    images_uncertain=st.booleans(),
    no_findings_reason=st.none() | st.just("failed: the worker was lost"),
    weights_may_rank=st.booleans(),
    reanalysis_pending=st.booleans(),
    stat=st.booleans(),
    waiting=st.timedeltas(timedelta(0), timedelta(days=2)),
)


def test_severe_is_urgent_and_names_the_canal():
    assert urgency(TriageFactors(severe=(RECESS, CANAL))) == (
        Urgency.URGENT,
        "severe L4/L5 spinal canal stenosis and 1 more",
    )


@pytest.mark.parametrize(
    ("factors", "reason"),
    [
        (TriageFactors(moderate=2), "2 moderate"),
        (TriageFactors(uncertain=1), "1 uncertain"),
        (TriageFactors(not_assessed=10), "10 not assessed"),
        (TriageFactors(numbering_uncertain=True), "numbering uncertain"),
        (TriageFactors(images_uncertain=True), "images uncertain"),
        (
            TriageFactors(no_findings_reason="not analysable: no axial T2"),
            "not analysable: no axial T2",
        ),
        (
            TriageFactors(severe=(CANAL,), weights_may_rank=False),
            "not ranked: the weights were not trained on clinical images",
        ),
    ],
)
def test_an_uncertain_result_ranks_with_the_moderate(factors, reason):
    assert urgency(factors) == (Urgency.PRIORITY, reason)


def test_a_fully_normal_study_is_routine():
    assert urgency(TriageFactors()) == (Urgency.ROUTINE, "all normal or mild")


@given(any_factors)
def test_a_stat_order_is_always_first(factors):
    assert urgency(TriageFactors(**{**vars(factors), "stat": True}))[0] is Urgency.URGENT


@given(any_factors, st.timedeltas(timedelta(0), timedelta(days=2)))
def test_waiting_longer_never_lowers_a_study(factors, longer):
    later = TriageFactors(**{**vars(factors), "waiting": factors.waiting + longer})
    assert urgency(later)[0] <= urgency(factors)[0]


@given(any_factors)
def test_no_study_waits_for_ever(factors):
    waited = TriageFactors(**{**vars(factors), "waiting": 2 * LONG_WAIT})
    assert urgency(waited)[0] is Urgency.URGENT


@given(any_factors)
def test_only_a_study_assessed_fully_and_confidently_as_normal_is_last(factors):
    if urgency(factors)[0] is Urgency.ROUTINE:
        assert factors.no_findings_reason is None
        assert factors.weights_may_rank
        assert not factors.reanalysis_pending
        assert not factors.numbering_uncertain
        assert not factors.images_uncertain
        assert (factors.severe, factors.moderate, factors.uncertain, factors.not_assessed) == (
            (),
            0,
            0,
            0,
        )
