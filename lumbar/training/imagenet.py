"""The ImageNet weights that backbones start from: files, weights fetched by Keras, or none."""

from collections.abc import Mapping
from pathlib import Path

from lumbar.errors import WrongSetting
from lumbar.networks.classifiers import BACKBONES, CLASSES, IMAGENET
from lumbar.training.recipes import Recipe


def imagenet_weights(
    recipe: Recipe, files: Mapping[str, Path | None]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The initial weights of each network (``condition``, ``severity``), and notes for the user.

    ``files``: weights by architecture. Without a file, Keras fetches the weights, once, for a
    recipe with a frozen phase; any other recipe starts from random weights.

    Raises:
        WrongSetting: a file is missing or does not fit the architecture.
    """
    start: dict[str, str] = {}
    notes = []
    for kind in CLASSES:
        network_recipe = getattr(recipe, kind)
        architecture = network_recipe.architecture
        file = files.get(architecture)
        if file is not None:
            _check(architecture, file)
            start[kind] = str(file)
        elif any(phase.frozen for phase in network_recipe.phases):
            if _fetch(architecture):
                start[kind] = IMAGENET
            else:
                notes.append(
                    f"{architecture}: ImageNet weights were not provided and cannot be fetched; "
                    "training starts from random weights without the frozen phase, and needs more "
                    "data and time for the same result"
                )
    return start, tuple(notes)


def _fetch(architecture: str) -> bool:
    """Whether Keras has the weights, or can fetch them into its own cache."""
    try:
        BACKBONES[architecture].build(
            weights=IMAGENET, include_top=False, input_shape=(224, 224, 3)
        )
    # Keras raises a plain Exception if the network or the host is unreachable.
    except Exception:  # noqa: BLE001
        return False
    return True


def _check(architecture: str, file: Path) -> None:
    if not file.is_file():
        raise WrongSetting(f"the weights file {file} does not exist; name another file")
    try:
        BACKBONES[architecture].build(
            weights=str(file), include_top=False, input_shape=(224, 224, 3)
        )
    except (ValueError, OSError) as error:
        raise WrongSetting(
            f"{file} has no ImageNet weights of {architecture} without top; name another file"
        ) from error
