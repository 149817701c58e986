"""Figures of graded findings, calibration, and the balance of the grades."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lumbar.networks.classifiers import OUTPUT_LAYER
from lumbar.training.balance import balance
from lumbar.training.calibration import (
    OFFSET_SD,
    apply_calibration,
    calibrate_network,
    calibration_loss,
    expected_calibration_error,
    fit_calibration,
    log_loss,
)
from lumbar.training.metrics import (
    ScoredFinding,
    agreement,
    bootstrap_intervals,
    competition_loss,
    confusion,
    figures,
)

RNG = np.random.default_rng(5)
LABELS = RNG.choice(3, 600, p=(0.7, 0.2, 0.1))


def one_hot(predictions):
    return np.eye(3)[predictions] * 0.98 + 0.01 * (1 - np.eye(3)[predictions])


def test_correct_predictions_reach_the_best_value_of_every_figure():
    values = figures(one_hot(LABELS), LABELS)
    for name in (
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
        "quadratic_kappa",
        "auc",
    ):
        assert values[name] == pytest.approx(1)
    assert values["log_loss"] == pytest.approx(-np.log(0.98))
    assert values["majority_accuracy"] == pytest.approx((LABELS == 0).mean())


def test_predicting_the_majority_is_the_majority_baseline():
    values = figures(one_hot(np.zeros_like(LABELS)), LABELS)
    assert values["accuracy"] == values["majority_accuracy"]
    assert values["balanced_accuracy"] == pytest.approx(1 / 3)
    assert values["quadratic_kappa"] == pytest.approx(0)
    assert values["auc"] == pytest.approx(0.5)


def test_a_severity_two_grades_off_costs_more_kappa_than_one_grade():
    one_off, two_off = LABELS.copy(), LABELS.copy()
    wrong = np.flatnonzero(LABELS == 0)[:60]
    one_off[wrong], two_off[wrong] = 1, 2
    assert agreement(one_off, LABELS)["accuracy"] == agreement(two_off, LABELS)["accuracy"]
    assert (
        agreement(one_off, LABELS)["quadratic_kappa"]
        > agreement(two_off, LABELS)["quadratic_kappa"] + 0.05
    )


def test_a_severity_that_does_not_occur_is_in_no_average():
    labels = np.array([0, 0, 1, 1])
    assert figures(one_hot(labels), labels)["balanced_accuracy"] == 1


def test_rows_of_the_confusion_matrix_are_the_labels():
    assert confusion(np.array([1, 1, 2]), np.array([0, 1, 2])).tolist() == [
        [0, 1, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]


def scored(group, label, probabilities, study="1"):
    return ScoredFinding(study, group, probabilities, label)


def test_the_competitions_loss_weighs_severe_four_times_and_averages_its_groups():
    canal = [scored("canal", 0, (0.8, 0.1, 0.1)), scored("canal", 2, (0.2, 0.3, 0.5))]
    recess = [scored("subarticular", 1, (0.2, 0.6, 0.2))]
    expected_canal = (-np.log(0.8) - 4 * np.log(0.5)) / 5
    any_severe = -np.log(0.5)
    assert competition_loss(canal + recess) == pytest.approx(
        np.mean([expected_canal, -np.log(0.6), any_severe])
    )


def test_any_severe_canal_is_a_studys_worst_level_weighted_by_its_worst_label():
    rows = [
        scored("canal", 0, (0.9, 0.05, 0.05), "a"),
        scored("canal", 1, (0.3, 0.4, 0.3), "a"),
        scored("canal", 2, (0.1, 0.2, 0.7), "b"),
    ]
    group = (-np.log(0.9) - 2 * np.log(0.4) - 4 * np.log(0.7)) / 7
    any_severe = (-2 * np.log(0.7) - 4 * np.log(0.7)) / 6
    assert competition_loss(rows) == pytest.approx((group + any_severe) / 2)


def test_intervals_resample_patients_and_contain_the_figure():
    patients = [str(i // 25) for i in range(600)]
    right = RNG.random(600) < 0.8
    low, high = bootstrap_intervals(lambda drawn: {"share": float(right[drawn].mean())}, patients)[
        "share"
    ]
    assert low < right.mean() < high
    # Correct or wrong by whole patients: far less is known.
    correct = np.repeat(RNG.random(24) < 0.8, 25)
    wide_low, wide_high = bootstrap_intervals(
        lambda drawn: {"share": float(correct[drawn].mean())}, patients
    )["share"]
    assert wide_high - wide_low > 2 * (high - low)


def test_a_figure_that_some_samples_do_not_have_is_measured_on_the_others():
    patients = [str(i) for i in range(20)]
    values = bootstrap_intervals(
        lambda drawn: {"some": float("nan") if 0 in drawn else 1.0, "none": float("nan")}, patients
    )
    assert values["some"] == (1.0, 1.0)
    assert np.isnan(values["none"]).all()


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.integers(1, 400), min_size=3, max_size=3))
def test_the_correction_undoes_sampling_and_weighting(oversampling, class_weight, counts):
    """A perfect classifier for the balanced classes becomes one for the natural classes."""
    labels = np.repeat(np.arange(3), counts)
    balanced = balance(labels, 3, oversampling, class_weight)
    assert balanced.sampling.sum() == pytest.approx(1)
    sampled = np.array([balanced.sampling[labels == c].sum() for c in range(3)])
    np.testing.assert_allclose(sampled * balanced.weights, balanced.effective, rtol=1e-6)
    assert (sampled * balanced.weights).sum() == pytest.approx(1)
    likelihood = np.array([0.2, 0.5, 0.9])
    natural, effective = balanced.natural * likelihood, balanced.effective * likelihood
    corrected = apply_calibration((effective / effective.sum())[None], balanced.correction)[0]
    np.testing.assert_allclose(corrected, natural / natural.sum(), atol=1e-9)


def test_oversampling_and_weights_favour_rare_classes():
    balanced = balance([0] * 90 + [1] * 9 + [2], 3, 0.5, 0.25)
    assert (
        balanced.effective[2] / balanced.effective[0]
        > 10 * balanced.natural[2] / balanced.natural[0]
    )
    assert balance([0] * 9 + [1], 3, 0, 0).correction[:2] == pytest.approx([0, 0])


def overconfident(n=4000, temperature=2.5):
    truth = RNG.dirichlet((1, 1, 1), n)
    labels = np.array([RNG.choice(3, p=p) for p in truth])
    sharp = apply_calibration(truth, np.zeros(3), 1 / temperature)
    return truth, sharp, labels


def test_the_fitted_temperature_is_the_one_that_was_applied():
    truth, sharp, labels = overconfident()
    correction, temperature = fit_calibration(sharp, np.zeros(3), labels)
    assert temperature == pytest.approx(2.5, rel=0.1)
    assert np.ptp(correction) < 0.3
    calm = apply_calibration(sharp, correction, temperature)
    assert log_loss(calm, labels) < log_loss(sharp, labels)
    assert (
        expected_calibration_error(calm, labels)
        < 0.02
        < 0.1
        < expected_calibration_error(sharp, labels)
    )
    np.testing.assert_allclose(apply_calibration(truth, np.zeros(3)), truth, atol=1e-9)


def test_the_fitted_offsets_undo_a_bias_towards_a_class():
    truth, _, labels = overconfident()
    skewed = apply_calibration(truth, np.array([0.8, 0.0, -0.6]))
    correction, temperature = fit_calibration(skewed, np.zeros(3), labels)
    assert correction - correction[1] == pytest.approx([-0.8, 0, 0.6], abs=0.15)
    unmoved, _ = fit_calibration(skewed, np.array([0.1, 0.0, 0.2]), labels, offsets=False)
    assert unmoved == pytest.approx([0.1, 0, 0.2], abs=1e-6)
    straight = apply_calibration(skewed, correction, temperature)
    assert (
        expected_calibration_error(straight, labels)
        < 0.02
        < expected_calibration_error(skewed, labels)
    )


def test_a_class_with_hardly_any_samples_gets_a_small_offset():
    truth, _, labels = overconfident(60)
    correction, temperature = fit_calibration(truth[labels < 2], np.zeros(3), labels[labels < 2])
    assert np.isfinite(correction).all()
    assert np.abs(correction).max() < 3
    assert 0.25 <= temperature <= 4


def test_a_calibrated_network_gives_the_calibrated_probabilities():
    crop = keras.Input((4,))
    network = keras.Model(
        crop, keras.layers.Dense(3, activation="softmax", name=OUTPUT_LAYER)(crop)
    )
    crops = RNG.random((6, 4), dtype=np.float32)
    before = network.predict_on_batch(crops)
    correction = np.array([0.4, -0.3, -1.2])
    calibrate_network(network, correction, 1.7)
    np.testing.assert_allclose(
        network.predict_on_batch(crops), apply_calibration(before, correction, 1.7), atol=1e-5
    )


def test_quadratic_kappa_is_cohens_kappa():
    other = np.clip(LABELS + RNG.integers(-1, 2, len(LABELS)), 0, 2)
    expected = cohen_kappa_score(LABELS, other, weights="quadratic")
    assert agreement(other, LABELS)["quadratic_kappa"] == pytest.approx(expected)


def test_balanced_accuracy_is_the_mean_recall_of_the_severities_that_occur():
    labels = LABELS[LABELS < 2]
    predictions = np.clip(labels + RNG.integers(0, 2, len(labels)), 0, 2)
    recalls = [(predictions[labels == c] == c).mean() for c in (0, 1)]
    assert agreement(predictions, labels)["balanced_accuracy"] == np.mean(recalls)
    assert agreement(predictions, labels)["accuracy"] == (predictions == labels).mean()


def newton(logits, labels, steps=100):
    """An independent minimisation of ``calibration_loss``: Newton's method, bounds by clipping."""
    count, classes = logits.shape
    terms = np.concatenate(
        [logits[:, None, :], np.broadcast_to(np.eye(classes), (count, classes, classes))], axis=1
    )
    start = np.array([1.0, *np.zeros(classes)])
    strength = np.diag([1e-6, *[1 / OFFSET_SD**2] * classes])
    parameters, truth = start.copy(), np.eye(classes)[labels]
    for _ in range(steps):
        scaled = np.einsum("nuc,u->nc", terms, parameters)
        odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        mean = np.einsum("nuc,nc->nu", terms, odds)
        slope = np.einsum("nuc,nc->u", terms, odds - truth) + strength @ (parameters - start)
        hessian = np.einsum("nuc,nvc,nc->uv", terms, terms, odds) - mean.T @ mean + strength
        step = np.linalg.solve(hessian, slope)
        parameters = parameters - step
        parameters[0] = np.clip(parameters[0], 0.25, 4)
        if np.abs(step).max() < 1e-6:
            break
    return parameters


@pytest.mark.parametrize(("temperature", "bias"), [(2.5, 0.0), (0.7, 0.8), (6.0, 0.3), (0.2, 0.0)])
def test_the_calibration_is_at_the_minimum_of_its_loss(temperature, bias):
    """No worse than Newton's method, and with a vanishing gradient unless a bound is reached."""
    truth, _, labels = overconfident(1500)
    raw = apply_calibration(truth, np.array([bias, 0.0, -bias]), 1 / temperature)
    priors = np.array([0.2, -0.1, -0.3])
    correction, fitted = fit_calibration(raw, priors, labels)
    parameters = np.array([1 / fitted, *(correction - priors) / fitted])
    logits = np.log(np.maximum(raw, 1e-12)) + priors
    loss, gradient = calibration_loss(parameters, logits, labels)
    assert loss <= calibration_loss(newton(logits, labels), logits, labels)[0] + 1e-9
    free = slice(1 if np.isclose(fitted, (0.25, 4)).any() else 0, None)
    assert np.abs(gradient[free]).max() < 1e-6


def test_the_calibrations_gradient_is_the_slope_of_its_loss():
    _, sharp, labels = overconfident(50)
    logits, at = np.log(np.maximum(sharp, 1e-12)), np.array([0.7, 0.3, -0.2, 0.1])
    for n, slope in enumerate(calibration_loss(at, logits, labels)[1]):
        step = 1e-6 * np.eye(4)[n]
        above, below = (calibration_loss(at + d, logits, labels)[0] for d in (step, -step))
        assert slope == pytest.approx((above - below) / 2e-6, abs=1e-6)
