"""Teaching and measuring: `lumbar train` and `lumbar evaluate`. For now of the level locator."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from commands.output import AsFormat, Format, print_records
from lumbar.errors import WrongSetting

app = typer.Typer()


@app.command(epilog="Example: lumbar evaluate phantoms/ --levels --format json")
def evaluate(
    data: Annotated[Path, typer.Argument(help="A data set in the RSNA 2024 layout")],
    levels: Annotated[bool, typer.Option("--levels", help="Measure the level locator")] = False,
    locator: Annotated[Path | None, typer.Option(help="A locator's folder instead of the shipped one")] = None,
    studies: Annotated[Path | None, typer.Option(help="Also write a line a study to this CSV file")] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Measures against a data set's labels. Figures on phantoms are no clinical ones."""
    from lumbar.networks import load_keypoints
    from lumbar.training.levels import evaluate_levels, summary, write_outcomes

    if not levels:
        raise WrongSetting("say what to measure: --levels")
    keypoints = load_keypoints(locator)
    with Progress(transient=True) as progress:
        bar = progress.add_task("Studies", total=None)

        def advance(count: int) -> None:
            if progress.tasks[bar].total is None:
                progress.update(bar, total=count)
            else:
                progress.advance(bar, count)

        outcomes = evaluate_levels(data, keypoints, advance)
    print_records(
        [{"figure": name, "value": value, "of": count} for name, value, count in summary(outcomes)],
        ("figure", "value", "of"),
        form,
    )
    if studies is not None:
        write_outcomes(studies, outcomes)


class Kind(StrEnum):
    """The level locator's networks."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"
    BORDER = "border"


@app.command(epilog="Example: lumbar train --levels --out locator/ --views views/")
def train(
    out: Annotated[Path, typer.Option(help="Folder to write the weights to")],
    views: Annotated[Path, typer.Option(help="Folder for the views to learn from, kept and used again")],
    levels: Annotated[bool, typer.Option("--levels", help="Teach the level locator, on phantoms")] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Also on the labelled points of a data set in the RSNA 2024 layout; measure on another"),
    ] = None,
    only: Annotated[list[Kind] | None, typer.Option(help="Only this network; may be given again")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Of the usual number of patients and steps")] = 1.0,
) -> None:
    """Teaches networks. An hour and a half on two cores for the level locator."""
    from lumbar.training.rebuild import rebuild_locator

    if not levels:
        raise WrongSetting("say what to teach: --levels")
    with Progress() as progress:

        def stage(name: str, length: int) -> Callable[[float], None]:
            bar = progress.add_task(name, total=length)
            return lambda done: progress.advance(bar, done)

        rebuild_locator(out, views, stage, kinds=[*(only or Kind)], data=data, share=share, seed=seed)
    typer.echo(f"Weights in {out}")
