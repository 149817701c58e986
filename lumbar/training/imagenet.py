"""Where the ImageNet weights to start from are: given as files, or fetched by Keras, or nowhere."""

from collections.abc import Mapping
from pathlib import Path

from lumbar.errors import WrongSetting
from lumbar.networks.classifiers import BACKBONES, CLASSES, IMAGENET
from lumbar.training.recipes import Recipe


def imagenet_weights(
    recipe: Recipe, given: Mapping[str, Path | None]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What each kind of network (``condition``, ``severity``) starts from, and what a person should know of that.

    ``given``: files by architecture. Without a file, a recipe with a frozen phase has Keras fetch the weights, once;
    one without starts at random. Raises WrongSetting where a given file is not there or does not fit.
    """
    start: dict[str, str] = {}
    told = []
    for kind in CLASSES:
        course = getattr(recipe, kind)
        architecture, file = course.architecture, given.get(course.architecture)
        if file is not None:
            _try(architecture, file)
            start[kind] = str(file)
        elif any(phase.frozen for phase in course.phases):
            if _fetched(architecture):
                start[kind] = IMAGENET
            else:
                told.append(
                    f"{architecture}: ImageNet's weights were not given and cannot be fetched; it starts from random "
                    f"weights without the frozen phase, and needs more data and time to learn as much"
                )
    return start, tuple(told)


def _fetched(architecture: str) -> bool:
    """By Keras, into its own cache."""
    try:
        BACKBONES[architecture].build(
            weights=IMAGENET, include_top=False, input_shape=(224, 224, 3)
        )
    except Exception:  # noqa: BLE001 - Keras raises a plain Exception where the network or the host is away
        return False
    return True


def _try(architecture: str, file: Path) -> None:
    if not file.is_file():
        raise WrongSetting(f"the weights {file} are not there; name a file")
    try:
        BACKBONES[architecture].build(
            weights=str(file), include_top=False, input_shape=(224, 224, 3)
        )
    except (ValueError, OSError) as error:
        raise WrongSetting(
            f"{file} holds no ImageNet weights of {architecture} without top"
        ) from error
