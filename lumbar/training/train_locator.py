"""The level locator from nothing: views drawn, each network taught, weights written."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lumbar.networks.locator import write_network
from lumbar.phantoms.locator_views import Views, axial_views, border_views, sagittal_views
from lumbar.spine.provenance import TrainedOn
from lumbar.training.annotated_views import write_labelled_views
from lumbar.training.keypoint_dataset import (
    Album,
    Lessons,
    axial_lesson,
    border_lesson,
    sagittal_lesson,
)
from lumbar.training.locator_trainer import teach
from lumbar.training.view_files import write_views

Stage = Callable[[str, int], Callable[[float], None]]


@dataclass(frozen=True)
class Recipe:
    """How much of everything; the defaults made the shipped weights."""

    patients: int
    steps: int
    batch: int
    seed: int = 1

    def scaled(self, share: float, seed: int) -> "Recipe":
        """The same with that share of the patients and steps, at least one of each."""
        return Recipe(
            max(1, round(self.patients * share)),
            max(1, round(self.steps * share)),
            self.batch,
            seed,
        )


class Course(NamedTuple):
    """What a network is taught, and how."""

    recipe: Recipe
    draw: Callable[[int], list[Views]]
    lessons: Lessons


COURSES = {
    "sagittal": Course(Recipe(3000, 7000, 16), sagittal_views, sagittal_lesson),
    "axial": Course(Recipe(900, 3000, 16), axial_views, axial_lesson),
    "border": Course(Recipe(4000, 4000, 64), border_views, border_lesson),
}


def rebuild_locator(
    out: Path,
    views: Path,
    stage: Stage,
    *,
    kinds: Sequence[str] = tuple(COURSES),
    data: Path | None = None,
    share: float = 1.0,
    seed: int = 1,
) -> None:
    """Writes networks of some ``kinds`` into the locator's folder; others that are there stay.

    The views (4 GB by default) are kept in ``views`` and used again. ``data``, in the RSNA 2024 layout, adds real
    slices with the labelled points to what the keypoint networks learn from. ``stage`` gets each stage's name and
    length, and gives what is called with the size of each step done.
    """
    labelled = write_labelled_views(views / "labelled", data, stage) if data is not None else {}
    for kind in kinds:
        course = COURSES[kind]
        recipe = course.recipe.scaled(share, seed)
        drawn = stage(f"Drawing {kind} views", recipe.patients)
        files = write_views(views / kind, course.draw, recipe.patients, recipe.seed, drawn)
        files += labelled.get(kind, [])
        album = Album(files)
        taught = stage(f"Teaching the {kind} network", recipe.steps)
        network = teach(
            kind,
            course.lessons,
            album,
            recipe.steps,
            recipe.batch,
            recipe.seed,
            partial(_told, taught),
        )
        learnt_from = TrainedOn.CLINICAL if kind in labelled else TrainedOn.SYNTHETIC
        write_network(out, kind, network, {"trained_on": learnt_from, "recipe": asdict(recipe)})


def _told(advance: Callable[[float], None], _loss: float) -> None:
    advance(1)
