"""Trains the level locator from scratch: draws views, trains each network, writes the weights."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lumbar.networks.locator import write_network
from lumbar.phantoms.locator_views import Views, axial_views, border_views, sagittal_views
from lumbar.spine.provenance import TrainedOn
from lumbar.training.annotated_views import write_annotated_views
from lumbar.training.keypoint_dataset import (
    ExampleSampler,
    ViewDataset,
    axial_example,
    border_example,
    sagittal_example,
)
from lumbar.training.locator_trainer import train_network
from lumbar.training.rsna_dataset import Exclusion
from lumbar.training.view_files import write_views

Stage = Callable[[str, int], Callable[[float], None]]


@dataclass(frozen=True)
class LocatorRecipe:
    """Number of phantom patients and of training steps, batch size and seed of one network."""

    patients: int
    steps: int
    batch: int
    seed: int = 1

    def scaled(self, share: float, seed: int) -> "LocatorRecipe":
        """The recipe with this share of the patients and steps, at least one of each."""
        return LocatorRecipe(
            max(1, round(self.patients * share)),
            max(1, round(self.steps * share)),
            self.batch,
            seed,
        )


class TrainingPlan(NamedTuple):
    """What one network is trained on: its recipe, views and examples."""

    recipe: LocatorRecipe
    draw: Callable[[int], list[Views]]
    sample: ExampleSampler


# The shipped weights were made with these recipes.
TRAINING_PLANS = {
    "sagittal": TrainingPlan(LocatorRecipe(3000, 7000, 16), sagittal_views, sagittal_example),
    "axial": TrainingPlan(LocatorRecipe(900, 3000, 16), axial_views, axial_example),
    "border": TrainingPlan(LocatorRecipe(4000, 4000, 64), border_views, border_example),
}


def train_locator(
    out: Path,
    views: Path,
    stage: Stage,
    *,
    kinds: Sequence[str] = tuple(TRAINING_PLANS),
    data: Path | None = None,
    share: float = 1.0,
    seed: int = 1,
) -> list[Exclusion]:
    """Trains the networks of these ``kinds`` and writes them to ``out``; other networks there stay.

    The views (4 GB by default) are stored in ``views`` and reused. ``data``, in the RSNA 2024
    layout, adds real slices with annotated points to the keypoint networks' training data.
    ``stage`` receives each stage's name and length, and returns a callback for steps done.
    Returns the studies of the data that cannot be read.
    """
    annotated: dict[str, list[Path]] = {}
    exclusions: list[Exclusion] = []
    if data is not None:
        annotated = write_annotated_views(views / "labelled", data, stage, exclusions)
    for kind in kinds:
        plan = TRAINING_PLANS[kind]
        recipe = plan.recipe.scaled(share, seed)
        advance = stage(f"Drawing {kind} views", recipe.patients)
        files = write_views(views / kind, plan.draw, recipe.patients, recipe.seed, advance)
        files += annotated.get(kind, [])
        network = train_network(
            kind,
            plan.sample,
            ViewDataset(files),
            recipe.steps,
            recipe.batch,
            recipe.seed,
            partial(_advance, stage(f"Training the {kind} network", recipe.steps)),
        )
        trained_on = TrainedOn.CLINICAL if kind in annotated else TrainedOn.SYNTHETIC
        write_network(out, kind, network, {"trained_on": trained_on, "recipe": asdict(recipe)})
    return exclusions


def _advance(advance: Callable[[float], None], _loss: float) -> None:
    advance(1)
