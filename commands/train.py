"""Teaching and measuring: `lumbar train`, `lumbar evaluate`, `lumbar compare`, `lumbar export`."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from commands.output import AsFormat, Format, print_records
from lumbar.errors import WrongSetting

if TYPE_CHECKING:
    from lumbar.training.recipes import Recipe

app = typer.Typer()

Stage = Callable[[str, int], Callable[[float], None]]
Data = Annotated[Path, typer.Argument(help="A data set in the RSNA 2024 layout")]


class Kind(StrEnum):
    """The level locator's networks."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"
    BORDER = "border"


@app.command(
    epilog="Example: lumbar train rsna/ --out my-bundle/ --recipe imagenet --vgg16 vgg16.h5 --resnet50 resnet50.h5 · "
    "lumbar train --levels --out locator/"
)
def train(
    out: Annotated[
        Path, typer.Option(help="Folder to write the bundle, or the locator's weights, to")
    ],
    data: Annotated[Path | None, typer.Argument(help="A data set in the RSNA 2024 layout")] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for crops, states, logs and plots, kept and used again [OUT.work]"
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="imagenet, cores, compare, or a TOML file")
    ] = "imagenet",
    vgg16: Annotated[
        Path | None, typer.Option(help="ImageNet weights of VGG16 without top; else fetched")
    ] = None,
    resnet50: Annotated[
        Path | None, typer.Option(help="ImageNet weights of ResNet-50 without top; else fetched")
    ] = None,
    name: Annotated[str, typer.Option(help="The bundle's name")] = "own",
    version: Annotated[str, typer.Option(help="The bundle's version")] = "1",
    levels: Annotated[
        bool,
        typer.Option(
            "--levels", help="Teach the level locator instead: on phantoms, and on DATA if named"
        ),
    ] = False,
    only: Annotated[
        list[Kind] | None, typer.Option(help="Only this network of the locator; may be given again")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the locator's teaching; a recipe has its own")
    ] = 1,
    share: Annotated[
        float,
        typer.Option(min=0.001, max=1, help="Of the locator's usual number of patients and steps"),
    ] = 1.0,
) -> None:
    """Teaches both classifiers and writes a bundle; killed and started again, it goes on. Or the level locator."""
    work = work or _work_of(out)
    if levels:
        from lumbar.training.train_locator import rebuild_locator

        with _stages() as stage:
            rebuild_locator(
                out, work, stage, kinds=[*(only or Kind)], data=data, share=share, seed=seed
            )
        typer.echo(f"Weights in {out}")
        return
    if data is None:
        raise WrongSetting("name the data set to learn from, or say --levels")
    from lumbar.training.imagenet import imagenet_weights
    from lumbar.training.train_bundle import DROPPED, train_bundle

    chosen = _recipe(recipe)
    weights, told = imagenet_weights(chosen, {"vgg16": vgg16, "resnet50": resnet50})
    for line in told:
        typer.echo(line)
    with _stages() as stage:
        identity = train_bundle(
            data, out, work, chosen, stage, name=name, version=version, imagenet=weights
        )
    with (work / DROPPED).open(encoding="utf-8") as table:
        for why, count in Counter(row["why"] for row in csv.DictReader(table)).most_common():
            typer.echo(f"Dropped, {count}: {why}")
    typer.echo(f"Bundle {identity} in {out}; plots, logs and {DROPPED} in {work}")


@app.command(epilog="Example: lumbar evaluate rsna/ --bundle my-bundle/ --out report/")
def evaluate(
    data: Data,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle's folder [the configured one]")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="test, validation or train: as the bundle's data were split; or all, of other data"
        ),
    ] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Write the report, its pictures and the submission's rows here"),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Keep the figures in the bundle's description under this name"
        ),
    ] = None,
    levels: Annotated[
        bool, typer.Option("--levels", help="Measure the level locator instead")
    ] = False,
    locator: Annotated[
        Path | None, typer.Option(help="With --levels: a folder instead of the shipped one")
    ] = None,
    studies: Annotated[
        Path | None, typer.Option(help="With --levels: also write a line a study to this CSV file")
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Measures a bundle against a data set's labels; the pipeline reads whole studies."""
    if levels:
        _evaluate_levels(data, locator, studies, form)
        return
    from commands.services import load_networks
    from lumbar.networks.bundle import SHIPPED, read_description, write_description
    from lumbar.settings import Settings
    from lumbar.training.evaluate_bundle import evaluate_bundle
    from lumbar.training.evaluation_report import measured, write_report
    from lumbar.training.split import Part
    from worker.pipeline import read_with

    if part not in (*Part, "all"):
        raise WrongSetting(f"--part is {part!r}; it can be {', '.join(Part)} or all")
    settings = Settings.load(**({"bundle": bundle} if bundle else {}))
    networks = load_networks(settings)()
    folder = settings.bundle or SHIPPED
    described = read_description(folder)
    with _stages() as stage:
        judged = evaluate_bundle(
            data,
            None if part == "all" else Part(part),
            described.get("data") or {},
            read_with(networks),
            stage,
        )
    figures = measured(judged)
    if out is not None:
        write_report(out, judged, figures, networks.identity, data.name)
    if record is not None:
        described["figures"] = {**described.get("figures", {}), record: {"part": part, **figures}}
        write_description(folder, described)
    rows = {"all": figures["overall"], **figures["by"]["group"], **figures["by"]["condition"]}
    _print_figures([_measured_row(name, row) for name, row in rows.items()], form, 4)
    if any(j.person.synthetic for j in judged):
        typer.echo(PHANTOMS, err=True)


@app.command(epilog="Example: lumbar compare phantoms/ --work compare/ --format csv")
def compare(
    data: Data,
    work: Annotated[
        Path,
        typer.Option(help="Folder for crops and states, kept and used again; a training's will do"),
    ],
    recipe: Annotated[
        str,
        typer.Option(help="compare, or a TOML file: of its severity part all but the architecture"),
    ] = "compare",
    only: Annotated[
        list[str] | None, typer.Option(help="Only this candidate; may be given again")
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Teaches six candidates for the severity network alike, from random weights, and prints one table."""
    from lumbar.training.compare import CANDIDATES
    from lumbar.training.compare import compare as compare_candidates
    from lumbar.training.train_bundle import prepare

    if unknown := set(only or ()) - set(CANDIDATES):
        raise WrongSetting(f"--only is {min(unknown)!r}; it can be {', '.join(CANDIDATES)}")
    chosen = _recipe(recipe)
    with _stages() as stage:
        cuts, _, parts = prepare(data, work, chosen.seed, stage)
        rows = compare_candidates(cuts, parts, work, chosen, stage, only or CANDIDATES)
    _print_figures([_rounded(row) for row in rows], form, len(rows))
    if any(cut.synthetic for cut in cuts):
        typer.echo(PHANTOMS, err=True)


@app.command(epilog="Example: lumbar export bundles/phantom --out exported/ --work bundle.work/")
def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder")],
    out: Annotated[Path, typer.Option(help="Folder to write to")],
    work: Annotated[
        Path | None,
        typer.Option(
            help="A training's work folder, for the test crops to try the files on [BUNDLE.work, else noise]"
        ),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--as", help="keras, h5, onnx or tflite; may be given again")
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="How many crops to try each file on")] = 200,
    form: AsFormat = Format.TABLE,
) -> None:
    """Writes both networks for other software, and refuses a file that answers otherwise than the original."""
    from lumbar.training.crop_files import kept_crops, noise_crops
    from lumbar.training.export import FORMATS, export_bundle
    from lumbar.training.split import Part

    if unknown := set(formats or ()) - set(FORMATS):
        raise WrongSetting(f"--as is {min(unknown)!r}; it can be {', '.join(FORMATS)}")
    kept = work or _work_of(bundle)
    tried = kept_crops(kept, Part.TEST, crops) if work or kept.exists() else noise_crops(crops)
    rows = export_bundle(bundle, out, formats or list(FORMATS), tried)
    print_records(rows, ("file", "bytes", "differs", "crops"), form)
    if not (work or kept.exists()):
        typer.echo(
            "Tried on smooth noise: name a training's work folder for its test crops.", err=True
        )


PHANTOMS = "Phantoms: the figures check the pipeline and are no clinical ones."
MEASURED = (
    "findings",
    "assessed",
    "condition_accuracy",
    "accuracy",
    "majority_accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "quadratic_kappa",
    "auc",
    "log_loss",
    "calibration_error",
    "competition_loss",
)


def _measured_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"what": name} | {figure: row.get(figure) for figure in MEASURED}
    for figure in ("accuracy", "balanced_accuracy"):
        shown[f"share_of_ceiling_{figure}"] = row.get("share_of_ceiling", {}).get(figure)
    return _rounded(shown)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()
    }


def _print_figures(rows: Sequence[Mapping[str, Any]], form: Format, shown: int) -> None:
    """A row each for programs; for people the first ``shown`` side by side, a line a figure."""
    names = list(rows[0])
    if form is not Format.TABLE:
        print_records(rows, names, form)
        return
    columns = [str(row[names[0]]) for row in rows[:shown]]
    lines = [
        {"": name} | {c: row[name] for c, row in zip(columns, rows, strict=False)}
        for name in names[1:]
    ]
    print_records(lines, ["", *columns], form)


def _evaluate_levels(data: Path, locator: Path | None, studies: Path | None, form: Format) -> None:
    from lumbar.networks import load_keypoints
    from lumbar.training.evaluate_locator import evaluate_levels, summary, write_outcomes

    keypoints = load_keypoints(locator)
    with Progress(transient=True, console=Console(stderr=True)) as progress:
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


def _work_of(bundle: Path) -> Path:
    """Where a bundle's training keeps its work unless told otherwise: beside it."""
    return bundle.resolve().with_name(f"{bundle.resolve().name}.work")


def _recipe(name: str) -> "Recipe":
    from lumbar.training.recipes import read_recipe

    return read_recipe(name)


@contextmanager
def _stages() -> Iterator[Stage]:
    """A bar for each stage, on standard error; where nobody looks at a terminal, a line when it begins."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:

        def stage(name: str, length: int) -> Callable[[float], None]:
            if not progress.console.is_terminal:
                typer.echo(f"{name}: {length}", err=True)
            bar = progress.add_task(name, total=length)
            return lambda done: progress.advance(bar, done)

        yield stage
