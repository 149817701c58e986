"""The two classifiers and the bundles they come in."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from lumbar.errors import WrongSetting
from lumbar.networks import Networks, bundle
from lumbar.networks.bundle import DESCRIPTION, load_bundle, read_identity, write_bundle
from lumbar.networks.classifiers import (
    CONDITION_CLASSES,
    IMAGENET_MEAN,
    Classifiers,
    build_condition_network,
    build_severity_network,
)
from lumbar.networks.locator import FOLDER, described
from lumbar.spine.anatomy import Condition
from lumbar.spine.crops import PREPROCESSING_VERSION
from lumbar.spine.provenance import TrainedOn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, saving weights

CROPS = np.random.default_rng(0).random((5, 224, 224), dtype=np.float32)


@pytest.fixture(scope="module")
def initial() -> Classifiers:
    return load_bundle(None)


@pytest.fixture(scope="module")
def written(initial: Classifiers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bundles") / "phantom"
    write_bundle(folder, "phantom", "3", TrainedOn.SYNTHETIC, initial._condition, initial._severity)
    yield folder
    shutil.rmtree(folder)  # 150 MB


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """The same bundle with a description of its own to spoil; its weights are links."""
    (tmp_path / DESCRIPTION).write_text((written / DESCRIPTION).read_text())
    for weights in written.glob("*.h5"):
        (tmp_path / weights.name).symlink_to(weights)
    return tmp_path


def test_classes_are_the_conditions_in_order_and_none() -> None:
    assert (*Condition, "none") == CONDITION_CLASSES


def test_every_row_is_a_probability_of_every_class(initial: Classifiers) -> None:
    reader: Networks = initial
    for rows, classes in ((reader.conditions(CROPS), 6), (reader.severities(CROPS), 3)):
        assert rows.shape == (5, classes)
        assert rows.dtype == np.float32
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_no_crops_give_no_rows(initial: Classifiers) -> None:
    assert initial.conditions(CROPS[:0]).shape == (0, 6)
    assert initial.severities(CROPS[:0]).shape == (0, 3)


def test_crops_of_another_shape_are_refused(initial: Classifiers) -> None:
    with pytest.raises(ValueError, match="224"):
        initial.conditions(CROPS[:, :100])


def test_a_crop_s_answer_does_not_depend_on_its_neighbours(initial: Classifiers) -> None:
    together = initial.severities(CROPS)
    assert np.ptp(together, axis=0).max() > 1e-4  # the crops do differ
    for n in range(len(CROPS)):
        np.testing.assert_allclose(initial.severities(CROPS[n : n + 1])[0], together[n], atol=1e-6)
    np.testing.assert_allclose(initial.severities(CROPS[::-1])[::-1], together, atol=1e-6)


def test_both_networks_see_grey_in_their_own_convention() -> None:
    """0–1 becomes 0–255 less the mean of each of ImageNet's channels, inside the graph."""
    for build in (build_condition_network, build_severity_network):
        network = build()
        centred = next(layer for layer in network.layers if isinstance(layer, keras.layers.Rescaling))
        channels = keras.Model(network.input, centred.output).predict_on_batch(np.full((1, 224, 224), 0.5, np.float32))
        np.testing.assert_allclose(channels[0, 100, 100], 127.5 - np.array(IMAGENET_MEAN), atol=1e-3)


def test_initial_weights_say_that_they_are_untrained_and_are_the_same_every_time(initial: Classifiers) -> None:
    assert initial.identity.trained_on == TrainedOn.NOTHING
    assert initial.identity.preprocessing_version == PREPROCESSING_VERSION
    again = load_bundle(None)
    assert again.identity == initial.identity
    np.testing.assert_allclose(again.severities(CROPS[:1]), initial.severities(CROPS[:1]), atol=1e-6)


def test_loading_does_not_leave_the_process_with_known_random_numbers() -> None:
    load_bundle(None)
    first = random.random(), np.random.random()
    load_bundle(None)
    assert random.random() != first[0]
    assert np.random.random() != first[1]


def test_a_bundle_read_back_answers_alike_under_its_own_name(initial: Classifiers, written: Path) -> None:
    read = load_bundle(written)
    assert str(read.identity) == "phantom 3 (synthetic)"
    assert read.identity == read_identity(written)
    assert read.identity.weights_sha256 != initial.identity.weights_sha256
    np.testing.assert_allclose(read.conditions(CROPS[:2]), initial.conditions(CROPS[:2]), atol=1e-6)
    np.testing.assert_allclose(read.severities(CROPS[:2]), initial.severities(CROPS[:2]), atol=1e-6)


NOTHING, SYNTHETIC, CLINICAL = TrainedOn


def state_trained_on(copied: Path, monkeypatch: pytest.MonkeyPatch, own: TrainedOn, border: dict[str, Any]) -> None:
    """Says ``own`` of the bundle; of the locator's networks that they are clinical, but of the border's ``border``."""
    (copied / DESCRIPTION).write_text(json.dumps(json.loads((copied / DESCRIPTION).read_text()) | {"trained_on": own}))
    stated = {kind: {"sha256": about["sha256"], "trained_on": CLINICAL} for kind, about in described(FOLDER).items()}
    stated["border"] = {"sha256": stated["border"]["sha256"], **border}
    (copied / "locator.json").write_text(json.dumps(stated))
    monkeypatch.setattr(bundle, "FOLDER", copied)


@pytest.mark.parametrize(
    ("own", "locator", "all_in_all"),
    [
        (CLINICAL, CLINICAL, CLINICAL),
        (CLINICAL, SYNTHETIC, SYNTHETIC),
        (CLINICAL, NOTHING, NOTHING),
        (SYNTHETIC, CLINICAL, SYNTHETIC),
        (NOTHING, CLINICAL, NOTHING),
    ],
)
def test_a_bundle_is_trained_on_no_more_than_the_weakest_network_it_is_read_with(
    copied: Path, monkeypatch: pytest.MonkeyPatch, own: TrainedOn, locator: TrainedOn, all_in_all: TrainedOn
) -> None:
    state_trained_on(copied, monkeypatch, own, {"trained_on": locator})
    assert read_identity(copied).trained_on is all_in_all


@pytest.mark.parametrize("border", [{}, {"trained_on": "hearsay"}])
def test_a_locator_that_does_not_say_what_it_has_learnt_from_is_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch, border: dict[str, str]
) -> None:
    state_trained_on(copied, monkeypatch, CLINICAL, border)
    with pytest.raises(WrongSetting, match="locator: its files are missing or damaged"):
        read_identity(copied)


def test_a_clinical_bundle_says_synthetic_while_the_shipped_locator_has_learnt_from_phantoms(copied: Path) -> None:
    (copied / DESCRIPTION).write_text((copied / DESCRIPTION).read_text().replace('"synthetic"', '"clinical"'))
    assert "Trained on synthetic data" in read_identity(copied).trained_on.notices


def test_weights_that_are_not_the_bundle_s_are_refused(copied: Path) -> None:
    (copied / "severity.weights.h5").unlink()
    (copied / "severity.weights.h5").write_bytes(b"other weights")
    with pytest.raises(WrongSetting, match=r"severity\.weights\.h5 does not match"):
        load_bundle(copied)


def test_other_classes_or_another_order_are_refused(copied: Path) -> None:
    described = json.loads((copied / DESCRIPTION).read_text())
    described["networks"]["condition"]["classes"].reverse()
    (copied / DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(WrongSetting, match="condition classes"):
        load_bundle(copied)


def test_another_preprocessing_is_refused(copied: Path) -> None:
    described = json.loads((copied / DESCRIPTION).read_text())
    described["preprocessing_version"] = "0"
    (copied / DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(WrongSetting, match="preprocessing version 0"):
        load_bundle(copied)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"networks": []}'])
def test_a_damaged_description_is_refused(copied: Path, text: str) -> None:
    (copied / DESCRIPTION).write_text(text)
    with pytest.raises(WrongSetting, match="damaged"):
        load_bundle(copied)


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"bundle\.json cannot be read"):
        load_bundle(tmp_path / "nowhere")


def test_importing_the_package_does_not_import_keras() -> None:
    code = "import sys, lumbar.networks; sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
