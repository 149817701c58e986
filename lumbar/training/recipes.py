"""How networks are taught: one small TOML file a recipe, in ``recipes/`` or a file of one's own."""

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
    """Some epochs alike; the rate falls from ``rate`` to a hundredth of it along a cosine."""

    epochs: int = Field(ge=1)
    rate: float = Field(gt=0)
    side: int = Field(224, ge=32, le=224)  # pixels the network works at
    frozen: bool = False  # only the head learns; left out where the backbone starts at random
    crops: int | None = Field(None, ge=1)  # of an epoch; all where not said


class Course(_Strict):
    """One network's teaching."""

    architecture: str
    oversampling: float = Field(
        0.5, ge=0, le=1
    )  # a class is drawn in proportion to (its share) ** (1 - this)
    class_weight: float = Field(
        0.5, ge=0, le=1
    )  # and weighs (its share) ** -this; together 1: all count alike
    phases: tuple[Phase, ...] = Field(min_length=1)


class Recipe(_Strict):
    """Everything that decides what is learnt, but for the data and the ImageNet weights."""

    about: str
    condition: Course
    severity: Course
    batch: int = Field(16, ge=1)
    seed: int = Field(1, ge=0)
    patience: int = Field(5, ge=1)  # epochs of a phase without a better validation loss that end it
    validation: int | None = Field(
        None, ge=1
    )  # crops that are looked at after each epoch; all where not said
    off_target: float = Field(0.5, ge=0)  # crops off target for each one on target that VGG16 sees
    neighbour: float = Field(0.3, ge=0, lt=1)  # how often a slice beside the labelled one is taken
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    augmentation: Amounts = Amounts()


def read_recipe(name: str) -> Recipe:
    """A recipe by its name in ``recipes/`` or its file. Raises WrongSetting."""
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
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise WrongSetting(f"the recipe {name!r} is wrong: {why}") from error
