"""The level locator from nothing: views drawn, both networks taught, weights written."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from lumbar.networks.locator import write_locator
from lumbar.phantoms.views import axial_views, sagittal_views
from lumbar.spine.keypoints import AXIAL, SAGITTAL
from lumbar.training.drill import Album, axial_lesson, sagittal_lesson
from lumbar.training.locator import BATCH, train_keypoints
from lumbar.training.views import write_views


@dataclass(frozen=True)
class Recipe:
    """How much of everything; the defaults made the shipped weights."""

    seed: int = 1
    sagittal_patients: int = 3000
    axial_patients: int = 900
    sagittal_steps: int = 7000
    axial_steps: int = 3000

    def scaled(self, share: float) -> "Recipe":
        """The same with that share of the patients and steps, at least one of each."""
        return Recipe(self.seed, *(max(1, round(n * share)) for name, n in asdict(self).items() if name != "seed"))


def rebuild_locator(
    out: Path, views: Path, recipe: Recipe, stage: Callable[[str, int], Callable[[float], None]]
) -> None:
    """Writes the locator's folder; the views (4 GB by default) are kept in ``views`` and used again.

    ``stage`` gets each stage's name and length, and gives what is called with the size of each step done.
    """
    networks = {}
    for kind, framing, draw, lesson, patients, steps in (
        ("sagittal", SAGITTAL, sagittal_views, sagittal_lesson, recipe.sagittal_patients, recipe.sagittal_steps),
        ("axial", AXIAL, axial_views, axial_lesson, recipe.axial_patients, recipe.axial_steps),
    ):
        write_views(views / kind, draw, patients, recipe.seed, stage(f"Drawing {kind} views", patients))
        taught = stage(f"Teaching the {kind} network", steps)
        album = Album(sorted((views / kind).glob("*[0-9].npz")))
        networks[kind] = train_keypoints(framing, lesson, album, steps, recipe.seed, partial(_told, taught))
    about: dict[str, object] = {"trained_on": "synthetic", "recipe": {**asdict(recipe), "batch": BATCH}}
    write_locator(out, networks, about)


def _told(advance: Callable[[float], None], _loss: float) -> None:
    advance(1)
