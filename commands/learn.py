"""Teaching and measuring: `lumbar train`, `lumbar evaluate`, `lumbar compare`, `lumbar export`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from commands.output import AsFormat, Format, print_records
from lumbar.errors import WrongSetting

app = typer.Typer()

Stage = Callable[[str, int], Callable[[float], None]]
Data = Annotated[Path, typer.Argument(help="A data set in the RSNA 2024 layout")]


class Kind(StrEnum):
    """The level locator's networks."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"
    BORDER = "border"


@app.command(
    epilog="Examples: lumbar train rsna/ --out my-bundle/ --recipe imagenet --vgg16 vgg16.h5 --resnet50 resnet50.h5 · "
    "lumbar train --levels --out locator/"
)
def train(
    out: Annotated[Path, typer.Option(help="Folder to write the bundle, or the locator's weights, to")],
    data: Annotated[Path | None, typer.Argument(help="A data set in the RSNA 2024 layout")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for crops, states, logs and plots, kept and used again [OUT.work]")
    ] = None,
    recipe: Annotated[str, typer.Option(help="imagenet, cores, compare, or a TOML file")] = "imagenet",
    vgg16: Annotated[Path | None, typer.Option(help="ImageNet weights of VGG16 without top; else fetched")] = None,
    resnet50: Annotated[Path | None, typer.Option(help="ImageNet weights of ResNet-50 without top; else fetched")] = None,
    name: Annotated[str, typer.Option(help="The bundle's name")] = "own",
    version: Annotated[str, typer.Option(help="The bundle's version")] = "1",
    levels: Annotated[
        bool, typer.Option("--levels", help="Teach the level locator instead: on phantoms, and on DATA if named")
    ] = False,
    only: Annotated[list[Kind] | None, typer.Option(help="Only this network of the locator; may be given again")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the locator's teaching; a recipe has its own")] = 1,
    share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Of the locator's usual number of patients and steps")
    ] = 1.0,
) -> None:
    """Teaches both classifiers and writes a bundle; killed and started again, it goes on. Or the level locator."""
    work = work or out.with_name(f"{out.name}.work")
    if levels:
        from lumbar.training.rebuild import rebuild_locator

        with _stages() as stage:
            rebuild_locator(out, work, stage, kinds=[*(only or Kind)], data=data, share=share, seed=seed)
        typer.echo(f"Weights in {out}")
        return
    if data is None:
        raise WrongSetting("name the data set to learn from, or say --levels")
    from lumbar.training.curriculum import train_bundle
    from lumbar.training.imagenet import imagenet_weights
    from lumbar.training.recipes import read_recipe

    chosen = read_recipe(recipe)
    weights, told = imagenet_weights(chosen, {"vgg16": vgg16, "resnet50": resnet50})
    for line in told:
        typer.echo(line)
    with _stages() as stage:
        identity = train_bundle(data, out, work, chosen, stage, name=name, version=version, imagenet=weights)
    typer.echo(f"Bundle {identity} in {out}; plots, logs and what was dropped in {work}")


@contextmanager
def _stages() -> Iterator[Stage]:
    """A bar for each stage; where nobody looks at a terminal, a line when it begins."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:

        def stage(name: str, length: int) -> Callable[[float], None]:
            if not progress.console.is_terminal:
                typer.echo(f"{name}: {length}")
            bar = progress.add_task(name, total=length)
            return lambda done: progress.advance(bar, done)

        yield stage
