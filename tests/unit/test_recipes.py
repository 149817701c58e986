"""Recipes, and the ImageNet weights that they start from."""

import tomllib

import pytest

from lumbar.errors import WrongSetting
from lumbar.networks import classifiers
from lumbar.networks.classifiers import BACKBONES, IMAGENET, Backbone, build_classifier
from lumbar.training.imagenet import imagenet_weights
from lumbar.training.recipes import FOLDER, read_recipe
from lumbar.training.trainer import effective_phases
from tests import tiny_network

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # Keras


@pytest.mark.parametrize("name", [file.stem for file in FOLDER.glob("*.toml")])
def test_every_shipped_recipe_can_be_read_and_names_known_networks(name):
    recipe = read_recipe(name)
    assert {recipe.condition.architecture, recipe.severity.architecture} <= BACKBONES.keys()
    assert recipe.batch == 16
    for network in (recipe.condition, recipe.severity):
        assert sum(phase.epochs for phase in network.phases) <= 20


def test_the_default_is_the_recipe_of_the_seed_report():
    recipe = read_recipe("imagenet")
    assert (recipe.condition.architecture, recipe.severity.architecture) == ("vgg16", "resnet50")
    for network in (recipe.condition, recipe.severity):
        assert [phase.frozen for phase in network.phases] == [True, False]
        assert sum(phase.epochs for phase in network.phases) == 20
        assert {phase.side for phase in network.phases} == {224}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("batch = 0", "batch"),
        ("bacth = 16", "bacth"),
        ("off_target = -1", "off_target"),
        ("x", "is invalid"),
    ],
)
def test_an_invalid_recipe_is_refused_naming_the_fault(tmp_path, change, fault):
    text = (FOLDER / "cores.toml").read_text().replace("validation = 1200", change)
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(WrongSetting, match=fault):
        read_recipe(str(tmp_path / "own.toml"))


def test_an_unknown_recipe_is_refused_with_a_list_of_the_known_ones():
    with pytest.raises(WrongSetting, match="compare, cores, imagenet"):
        read_recipe("cors")


def test_a_custom_recipe_is_read_from_its_file(tmp_path):
    (tmp_path / "own.toml").write_bytes((FOLDER / "cores.toml").read_bytes())
    assert read_recipe(str(tmp_path / "own.toml")) == read_recipe("cores")
    assert tomllib.loads((FOLDER / "cores.toml").read_text())["about"] == read_recipe("cores").about


def unreachable(*args, weights=None, **others):
    if weights == IMAGENET:
        raise Exception("URL fetch failure")
    return tiny_network.build(weights=weights, **others)


@pytest.fixture
def recipe(monkeypatch):
    tiny_network.register(monkeypatch)
    network = {
        "architecture": tiny_network.TINY,
        "phases": [{"epochs": 1, "rate": 1e-3, "frozen": True}, {"epochs": 1, "rate": 1e-4}],
    }
    return tiny_network.recipe(condition=network, severity=network)


def test_weights_that_cannot_be_fetched_are_noted_and_training_continues_without(
    recipe, monkeypatch
):
    monkeypatch.setitem(
        classifiers.BACKBONES,
        tiny_network.TINY,
        Backbone(unreachable, (1.0,) * 3, (0.0,) * 3, 0.25),
    )
    start, notes = imagenet_weights(recipe, {})
    assert start == {}
    assert all("cannot be fetched" in line and "random" in line for line in notes)
    assert len(notes) == 2
    assert [phase.frozen for phase in effective_phases(recipe.severity, None)] == [False]


def test_the_backbone_starts_from_weights_in_a_file(recipe, tmp_path):
    file = tmp_path / "tiny.weights.h5"
    saved = tiny_network.build(input_shape=(224, 224, 3))
    saved.save_weights(file)
    start, notes = imagenet_weights(recipe, {tiny_network.TINY: file})
    assert start == dict.fromkeys(("condition", "severity"), str(file))
    assert notes == ()
    network = build_classifier("severity", tiny_network.TINY, 64, start["severity"])
    for loaded, expected in zip(
        network.get_layer("backbone").get_weights(), saved.get_weights(), strict=True
    ):
        assert (loaded == expected).all()
    assert [phase.frozen for phase in effective_phases(recipe.severity, str(file))] == [True, False]


def test_a_missing_or_unsuitable_weights_file_is_refused(recipe, tmp_path):
    with pytest.raises(WrongSetting, match="does not exist"):
        imagenet_weights(recipe, {tiny_network.TINY: tmp_path / "nowhere.h5"})
    (tmp_path / "other.weights.h5").write_bytes(b"no weights")
    with pytest.raises(WrongSetting, match="has no ImageNet weights"):
        imagenet_weights(recipe, {tiny_network.TINY: tmp_path / "other.weights.h5"})
