"""The two classifiers and the bundles they come in."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from lumbar.errors import WrongSetting
from lumbar.networks import Networks, identity
from lumbar.networks.bundle import (
    DESCRIPTION,
    SHIPPED,
    load_bundle,
    read_identity,
    write_bundle,
    write_description,
)
from lumbar.networks.classifiers import BACKBONES, CLASSES, Classifiers, build_classifier
from lumbar.networks.locator import FOLDER, FRAMINGS, read_locator_description
from lumbar.spine.anatomy import Condition
from lumbar.spine.crops import PREPROCESSING_VERSION
from lumbar.spine.provenance import TrainedOn

pytestmark = [
    pytest.mark.slow,
    # Keras, saving weights
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

CROPS = np.random.default_rng(0).random((5, 224, 224), dtype=np.float32)
SIDES = {"condition": 64, "severity": 96}


@pytest.fixture(scope="module")
def networks() -> dict[str, keras.Model]:
    """Both networks as they start without any weights."""
    keras.utils.set_random_seed(1)
    return {
        "condition": build_classifier("condition", "vgg16", SIDES["condition"]),
        "severity": build_classifier("severity", "resnet50", SIDES["severity"]),
    }


@pytest.fixture(scope="module")
def small() -> Callable[[str], keras.Model]:
    """The severity network of an architecture, for small images; built once."""
    return cache(lambda architecture: build_classifier("severity", architecture, 32))


@pytest.fixture(scope="module")
def bundle_folder(
    networks: dict[str, keras.Model], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bundles") / "phantom"
    write_bundle(folder, "phantom", "3", TrainedOn.SYNTHETIC, networks, SIDES)
    yield folder
    shutil.rmtree(folder)  # 77 MB


@pytest.fixture(scope="module")
def classifiers(bundle_folder: Path) -> Classifiers:
    return load_bundle(bundle_folder)


@pytest.fixture
def bundle_copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """The same bundle with a copy of the description, to be damaged; its weights are links."""
    (tmp_path / DESCRIPTION).write_text((bundle_folder / DESCRIPTION).read_text())
    for weights in bundle_folder.glob("*.npz"):
        (tmp_path / weights.name).symlink_to(weights)
    return tmp_path


def test_classes_are_the_conditions_in_order_and_none() -> None:
    assert CLASSES["condition"] == (*Condition, "none")


def test_every_row_is_a_probability_of_every_class(classifiers: Classifiers) -> None:
    networks: Networks = classifiers
    for rows, classes in ((networks.conditions(CROPS), 6), (networks.severities(CROPS), 3)):
        assert rows.shape == (5, classes)
        assert rows.dtype == np.float32
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_no_crops_give_no_rows(classifiers: Classifiers) -> None:
    assert classifiers.conditions(CROPS[:0]).shape == (0, 6)
    assert classifiers.severities(CROPS[:0]).shape == (0, 3)


def test_crops_of_another_shape_are_refused(classifiers: Classifiers) -> None:
    with pytest.raises(ValueError, match="224"):
        classifiers.conditions(CROPS[:, :100])


def test_the_probabilities_of_a_crop_do_not_depend_on_its_neighbours(
    classifiers: Classifiers,
) -> None:
    together = classifiers.severities(CROPS)
    assert np.ptp(together, axis=0).max() > 1e-4  # the crops do differ
    for n in range(len(CROPS)):
        np.testing.assert_allclose(
            classifiers.severities(CROPS[n : n + 1])[0], together[n], atol=1e-6
        )
    np.testing.assert_allclose(classifiers.severities(CROPS[::-1])[::-1], together, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "white", "black"),
    [
        ("vgg16", (151.061, 138.221, 131.32), (-103.939, -116.779, -123.68)),
        ("resnet50", (151.061, 138.221, 131.32), (-103.939, -116.779, -123.68)),
        ("densenet121", (2.2489, 2.4286, 2.64), (-2.1179, -2.0357, -1.8044)),
        ("mobilenetv2", (1, 1, 1), (-1, -1, -1)),
        ("efficientnetb0", (255, 255, 255), (0, 0, 0)),
    ],
)
def test_every_backbone_sees_grey_in_the_convention_of_its_imagenet_weights(
    small: Callable[[str], keras.Model],
    architecture: str,
    white: tuple[float, ...],
    black: tuple[float, ...],
) -> None:
    """As ``keras.applications`` prepares images for it."""
    network = small(architecture)
    scaled = next(layer for layer in network.layers if isinstance(layer, keras.layers.Rescaling))
    channels = keras.Model(network.input, scaled.output)
    for value, expected in ((1.0, white), (0.0, black)):
        prepared = channels.predict_on_batch(np.full((1, 224, 224), value, np.float32))
        np.testing.assert_allclose(prepared[0, 10, 10], expected, atol=2e-3)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_weights_do_not_depend_on_the_input_size_of_a_network(
    small: Callable[[str], keras.Model], architecture: str
) -> None:
    network, larger = small(architecture), build_classifier("severity", architecture, 64)
    larger.set_weights(network.get_weights())
    assert network(CROPS[:1]).shape == larger(CROPS[:1]).shape == (1, 3)


@pytest.mark.parametrize("kind", ["condition", "severity"])
def test_no_two_layers_begin_with_the_same_kernel(
    networks: dict[str, keras.Model], kind: str
) -> None:
    layers = networks[kind].get_layer("backbone").layers
    kernels = [
        layer.get_weights()[0].tobytes() for layer in layers if type(layer) is keras.layers.Conv2D
    ]
    assert len(kernels) >= 13
    assert len(set(kernels)) == len(kernels)


def test_a_value_that_is_not_a_number_is_null_in_the_description(tmp_path: Path) -> None:
    write_description(
        tmp_path, {"figures": {"kappa": float("nan"), "interval": (0.5, float("nan"))}}
    )
    text = (tmp_path / DESCRIPTION).read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "figures": {"kappa": None, "interval": [0.5, None]}
    }


def test_random_weights_let_a_signal_through_a_network_without_normalisation(
    networks: dict[str, keras.Model],
) -> None:
    """As glorot's do not: sixteen layers would leave little of it."""
    backbone = networks["condition"].get_layer("backbone")
    noise = np.random.default_rng(3).normal(0, 64, (2, 64, 64, 3)).astype(np.float32)
    assert 0.1 < backbone.predict_on_batch(noise).std() < 10


def test_a_bundle_read_back_predicts_as_written_within_half_precision(
    networks: dict[str, keras.Model], bundle_folder: Path, classifiers: Classifiers
) -> None:
    assert str(classifiers.identity) == "phantom 3 (synthetic)"
    assert classifiers.identity == read_identity(bundle_folder)
    for rows, kind in (
        (classifiers.conditions(CROPS), "condition"),
        (classifiers.severities(CROPS), "severity"),
    ):
        np.testing.assert_allclose(rows, networks[kind].predict_on_batch(CROPS), atol=5e-3)
    assert sum(file.stat().st_size for file in bundle_folder.iterdir()) < 95_000_000


def test_the_shipped_bundle_is_complete_small_enough_and_trained_on_phantoms() -> None:
    identity = read_identity(SHIPPED)
    assert identity.trained_on is TrainedOn.SYNTHETIC
    assert identity.preprocessing_version == PREPROCESSING_VERSION
    files = [*SHIPPED.iterdir(), *FOLDER.iterdir()]
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 100_000_000
    description = json.loads((SHIPPED / DESCRIPTION).read_text())
    assert {"command", "data", "recipe", "training", "figures"} <= description.keys()


def test_the_description_alone_names_the_same_weights(bundle_folder: Path) -> None:
    assert tuple(CLASSES) == identity.CLASSIFIERS
    assert tuple(FRAMINGS) == identity.LOCATORS
    assert identity.stated_identity(None) == read_identity(SHIPPED)
    assert identity.stated_identity(bundle_folder) == read_identity(bundle_folder)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"name": "n", "networks": []}'])
def test_a_damaged_description_names_no_weights(tmp_path: Path, content: str) -> None:
    (tmp_path / DESCRIPTION).write_text(content)
    with pytest.raises(WrongSetting, match=r"bundle\.json is damaged"):
        identity.stated_identity(tmp_path)
    with pytest.raises(WrongSetting, match=r"bundle\.json cannot be read"):
        identity.stated_identity(tmp_path / "nowhere")


NOTHING, SYNTHETIC, CLINICAL = TrainedOn


def state_trained_on(
    bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained_on: TrainedOn,
    border: dict[str, Any],
) -> None:
    """States ``trained_on`` as the bundle's training data, and clinical as the locator networks'.

    ``border`` replaces the entry of the border classifier.
    """
    (bundle_copy / DESCRIPTION).write_text(
        json.dumps(json.loads((bundle_copy / DESCRIPTION).read_text()) | {"trained_on": trained_on})
    )
    locator_description = {
        kind: {"sha256": about["sha256"], "trained_on": CLINICAL}
        for kind, about in read_locator_description(FOLDER).items()
    }
    locator_description["border"] = {"sha256": locator_description["border"]["sha256"], **border}
    (bundle_copy / "locator.json").write_text(json.dumps(locator_description))
    monkeypatch.setattr(identity, "FOLDER", bundle_copy)


@pytest.mark.parametrize(
    ("trained_on", "locator", "expected"),
    [
        (CLINICAL, CLINICAL, CLINICAL),
        (CLINICAL, SYNTHETIC, SYNTHETIC),
        (CLINICAL, NOTHING, NOTHING),
        (SYNTHETIC, CLINICAL, SYNTHETIC),
        (NOTHING, CLINICAL, NOTHING),
    ],
)
def test_a_bundle_is_trained_on_no_more_than_the_weakest_network_it_is_read_with(
    bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained_on: TrainedOn,
    locator: TrainedOn,
    expected: TrainedOn,
) -> None:
    state_trained_on(bundle_copy, monkeypatch, trained_on, {"trained_on": locator})
    assert read_identity(bundle_copy).trained_on is expected


@pytest.mark.parametrize("border", [{}, {"trained_on": "hearsay"}])
def test_a_locator_that_does_not_state_its_training_data_is_refused(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, border: dict[str, str]
) -> None:
    state_trained_on(bundle_copy, monkeypatch, CLINICAL, border)
    with pytest.raises(WrongSetting, match="locator: its files are missing or damaged"):
        read_identity(bundle_copy)


def test_a_clinical_bundle_counts_as_synthetic_while_the_locator_was_trained_on_phantoms(
    bundle_copy: Path,
) -> None:
    (bundle_copy / DESCRIPTION).write_text(
        (bundle_copy / DESCRIPTION).read_text().replace('"synthetic"', '"clinical"')
    )
    assert "Trained on synthetic data" in read_identity(bundle_copy).trained_on.notices


def test_weights_of_another_bundle_are_refused(bundle_copy: Path) -> None:
    (bundle_copy / "severity.npz").unlink()
    (bundle_copy / "severity.npz").write_bytes(b"other weights")
    with pytest.raises(WrongSetting, match=r"severity\.npz does not match"):
        load_bundle(bundle_copy)


def test_other_classes_or_another_order_are_refused(bundle_copy: Path) -> None:
    description = json.loads((bundle_copy / DESCRIPTION).read_text())
    description["networks"]["condition"]["classes"].reverse()
    (bundle_copy / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(WrongSetting, match="condition classes"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("change", [{"architecture": "vgg19"}, {"side": 225}, {"side": 0}])
def test_an_unknown_network_is_refused(bundle_copy: Path, change: dict[str, Any]) -> None:
    description = json.loads((bundle_copy / DESCRIPTION).read_text())
    description["networks"]["severity"] |= change
    (bundle_copy / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(WrongSetting, match="severity network"):
        load_bundle(bundle_copy)


def test_weights_of_another_network_are_refused(bundle_copy: Path) -> None:
    description = json.loads((bundle_copy / DESCRIPTION).read_text())
    description["networks"]["severity"]["architecture"] = "vgg16"
    (bundle_copy / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(WrongSetting, match="severity weights do not fit"):
        load_bundle(bundle_copy)


def test_another_preprocessing_is_refused(bundle_copy: Path) -> None:
    description = json.loads((bundle_copy / DESCRIPTION).read_text())
    description["preprocessing_version"] = "0"
    (bundle_copy / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(WrongSetting, match="preprocessing version 0"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"networks": []}'])
def test_a_damaged_description_is_refused(bundle_copy: Path, text: str) -> None:
    (bundle_copy / DESCRIPTION).write_text(text)
    with pytest.raises(WrongSetting, match="damaged"):
        load_bundle(bundle_copy)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"bundle\.json cannot be read"):
        load_bundle(tmp_path / "nowhere")


def test_importing_the_package_does_not_import_keras() -> None:
    code = (
        "import sys, lumbar.networks; "
        "sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
