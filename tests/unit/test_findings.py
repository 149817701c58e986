"""The values a finding may have."""

import pytest

from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Severity
from lumbar.spine.findings import Finding, ImagePoint

POINT = ImagePoint("1.2", "1.3", "1.4", None, 10, 20, 0, 0, 0)
CANAL = (Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)


def test_a_study_has_25_findings_in_the_order_of_the_rsna_rows():
    rows = [key.row_id("1") for key in ALL_FINDINGS]
    assert len(rows) == 25
    assert rows == sorted(rows)
    assert rows[0] == "1_left_neural_foraminal_narrowing_l1_l2"


def test_the_severity_is_the_most_probable_one():
    assert (
        Finding(*CANAL, probabilities=(0.2, 0.7, 0.1), point=POINT, shows=1).severity
        is Severity.MODERATE
    )


def test_of_two_equally_probable_severities_the_more_severe_counts():
    assert (
        Finding(*CANAL, probabilities=(0.4, 0.2, 0.4), point=POINT, shows=1).severity
        is Severity.SEVERE
    )


@pytest.mark.parametrize(
    "half_made",
    [
        {},
        {"probabilities": (0.2, 0.7, 0.1)},
        {"probabilities": (0.2, 0.7, 0.1), "point": POINT},
        {"probabilities": (0.2, 0.7, 0.1), "point": POINT, "shows": 1, "reason": "but"},
        {"probabilities": (0.2, 0.7, 0.7), "point": POINT, "shows": 1},
        {"probabilities": (1.2, 0.0, -0.2), "point": POINT, "shows": 1},
    ],
)
def test_a_partly_valid_finding_cannot_be_created(half_made):
    with pytest.raises(ValueError, match=r"finding|probabilities"):
        Finding(*CANAL, **half_made)


def test_the_canal_has_no_side_and_every_other_condition_has_one():
    sides = {key.condition: key.condition.side for key in ALL_FINDINGS}
    assert sides.pop(Condition.SPINAL_CANAL_STENOSIS) is None
    assert all(condition.value.startswith(str(side)) for condition, side in sides.items())
    assert FindingKey(*CANAL).row_id("7") == "7_spinal_canal_stenosis_l4_l5"
