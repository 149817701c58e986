"""Simulated readers agree with each other as well as real ones do."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lumbar.phantoms.simulated_readers import KAPPA, simulate_reading
from lumbar.phantoms.truth import draw_burdens, severity
from lumbar.spine.anatomy import ALL_FINDINGS, Role, Severity

ORDER = list(Severity)


@pytest.fixture(scope="module")
def readings():
    """Per role: the true severities and two readers', of many patients."""
    grades = {role: ([], [], []) for role in Role}
    for seed in range(2500):
        burdens = draw_burdens(np.random.default_rng((seed, 0)))
        first, second = (
            simulate_reading(np.random.default_rng((seed, n)), burdens) for n in (4, 5)
        )
        for key in ALL_FINDINGS:
            for column, grade in zip(
                grades[key.condition.role],
                (severity(burdens[key]), first[key], second[key]),
                strict=True,
            ):
                column.append(ORDER.index(grade))
    return {role: np.array(columns) for role, columns in grades.items()}


@pytest.mark.slow
@pytest.mark.parametrize("role", Role)
def test_two_readers_agree_as_published(readings, role):
    _, first, second = readings[role]
    assert cohen_kappa_score(first, second) == pytest.approx(KAPPA[role], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("role", Role)
def test_no_reader_is_off_by_more_than_one_grade(readings, role):
    truth, first, second = readings[role]
    assert abs(first - truth).max() == 1
    assert abs(second - truth).max() == 1


def test_only_borderline_findings_are_graded_differently():
    clear, close = (
        np.mean(
            [
                list(
                    simulate_reading(
                        np.random.default_rng(n), dict.fromkeys(ALL_FINDINGS, burden)
                    ).values()
                ).count(severity(burden))
                for n in range(40)
            ]
        )
        / 25
        for burden in (0.2, 0.95)
    )
    assert clear > 0.95
    assert close < 0.75
