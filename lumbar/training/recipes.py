"""Training recipes of the classifiers: TOML files, shipped in ``recipes/`` or written by users."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lumbar.errors import WrongSetting
from lumbar.training.augment import Amounts

FOLDER = Path(__file__).parent / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phase(_Strict):
    """Epochs with equal settings; the rate falls from ``rate`` to 1 % of it along a cosine."""

    epochs: int = Field(ge=1)
    rate: float = Field(gt=0)
    # Input size of the network, pixels.
    side: int = Field(224, ge=32, le=224)
    # Train the head only; the phase is skipped where the backbone starts from random weights.
    frozen: bool = False
    # Crops per epoch; None: as many as the data have.
    crops: int | None = Field(None, ge=1)


class NetworkRecipe(_Strict):
    """Architecture, class balance and training schedule of one network."""

    architecture: str
    # A class is sampled in proportion to share ** (1 - oversampling) …
    oversampling: float = Field(0.5, ge=0, le=1)
    # … and weighted by share ** -class_weight; if both sum to 1, all classes count alike.
    class_weight: float = Field(0.5, ge=0, le=1)
    phases: tuple[Phase, ...] = Field(min_length=1)


class Recipe(_Strict):
    """Everything that determines the trained weights, except the data and the ImageNet weights."""

    about: str
    condition: NetworkRecipe
    severity: NetworkRecipe
    batch: int = Field(16, ge=1)
    seed: int = Field(1, ge=0)
    # Early stopping: a phase ends after this many epochs without a lower validation loss.
    patience: int = Field(5, ge=1)
    # Validation crops evaluated after each epoch; None: all.
    validation: int | None = Field(None, ge=1)
    # Off-target crops per on-target crop, for the condition network.
    off_target: float = Field(0.5, ge=0)
    # Probability of using a slice next to the annotated one.
    neighbour: float = Field(0.3, ge=0, lt=1)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    augmentation: Amounts = Amounts()


def read_recipe(name: str) -> Recipe:
    """The recipe of that name in ``recipes/``, or from a file.

    Raises:
        WrongSetting: there is no such recipe, or its content is invalid.
    """
    known = sorted(file.stem for file in FOLDER.glob("*.toml"))
    file = FOLDER / f"{name}.toml" if name in known else Path(name)
    try:
        return Recipe.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise WrongSetting(
            f"there is no recipe {name!r}; name a file or one of: {', '.join(known)}"
        ) from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise WrongSetting(f"the recipe {name!r} is invalid: {reason}") from error
