"""Training and evaluation: `lumbar train`, `evaluate`, `compare` and `export`."""

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
from commands.requirements import require_folder, require_training
from lumbar.errors import Permanent, WrongSetting
from lumbar.networks import require_tensorflow

if TYPE_CHECKING:
    from lumbar.training.recipes import Recipe
    from lumbar.training.rsna_dataset import Exclusion

app = typer.Typer()

Stage = Callable[[str, int], Callable[[float], None]]
Data = Annotated[Path, typer.Argument(help="A data set in the RSNA 2024 layout")]


class Kind(StrEnum):
    """The level locator's networks."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"
    BORDER = "border"


@app.command(
    epilog="Example: lumbar train rsna/ --out my-bundle/ --recipe imagenet --vgg16 vgg16.h5 "
    "--resnet50 resnet50.h5 · lumbar train --levels --out locator/"
)
def train(
    out: Annotated[
        Path, typer.Option(help="Folder to write the bundle, or the locator's weights, to")
    ],
    data: Annotated[Path | None, typer.Argument(help="A data set in the RSNA 2024 layout")] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for crops, states, logs and plots, reused by later runs [OUT.work]"
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
            "--levels", help="Train the level locator instead: on phantoms, and on DATA if given"
        ),
    ] = False,
    only: Annotated[
        list[Kind] | None, typer.Option(help="Only this network of the locator; can be repeated")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the locator's training; a recipe has its own")
    ] = 1,
    share: Annotated[
        float,
        typer.Option(
            min=0.001, max=1, help="Share of the locator's usual number of patients and steps"
        ),
    ] = 1.0,
) -> None:
    """Trains both classifiers and writes a bundle, or trains the level locator; resumable."""
    work = work or _work_of(out)
    if levels:
        require_tensorflow()
        require_folder(out)
        from lumbar.training.train_locator import train_locator

        with _stages() as stage:
            excluded = train_locator(
                out, work, stage, kinds=[*(only or Kind)], data=data, share=share, seed=seed
            )
        typer.echo(f"Weights in {out}")
        _require_readable(excluded)
        return
    if data is None:
        raise WrongSetting("name a data set to train on, or use --levels")
    require_training("matplotlib", "scipy", "sklearn", "tensorboard")
    require_folder(out)
    from lumbar.training.imagenet import imagenet_weights
    from lumbar.training.rsna_dataset import Exclusion
    from lumbar.training.train_bundle import DROPPED, train_bundle

    chosen = _recipe(recipe)
    weights, notes = imagenet_weights(chosen, {"vgg16": vgg16, "resnet50": resnet50})
    for note in notes:
        typer.echo(note)
    with _stages() as stage:
        identity = train_bundle(
            data, out, work, chosen, stage, name=name, version=version, imagenet=weights
        )
    with (work / DROPPED).open(encoding="utf-8") as table:
        exclusions = [Exclusion(*row.values()) for row in csv.DictReader(table)]
    for reason, count in Counter(e.reason for e in exclusions).most_common():
        typer.echo(f"Excluded, {count}: {reason}")
    typer.echo(f"Bundle {identity} in {out}; plots, logs and {DROPPED} in {work}")
    _require_readable(exclusions)


@app.command(epilog="Example: lumbar evaluate rsna/ --bundle my-bundle/ --out report/")
def evaluate(
    data: Data,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle's folder [the configured one]")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="test, validation or train of the data trained on; or all, for other data"
        ),
    ] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report, its plots and a competition submission"),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Store the figures in the bundle's description under this name"
        ),
    ] = None,
    levels: Annotated[
        bool, typer.Option("--levels", help="Evaluate the level locator instead")
    ] = False,
    locator: Annotated[
        Path | None, typer.Option(help="With --levels: a folder instead of the shipped one")
    ] = None,
    studies: Annotated[
        Path | None,
        typer.Option(help="With --levels: also write one line per study to this CSV file"),
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Evaluates a bundle on a data set's labels; the pipeline analyses whole studies."""
    if levels:
        _evaluate_levels(data, locator, studies, form)
        return
    require_training("markdown", "matplotlib", "scipy", "sklearn")
    from commands.services import load_networks
    from lumbar.networks.bundle import SHIPPED, read_description, write_description
    from lumbar.settings import Settings
    from lumbar.training.evaluate_bundle import evaluate_bundle
    from lumbar.training.evaluation_report import compute_figures, write_report
    from lumbar.training.split import Part
    from worker.pipeline import read_with

    if part not in (*Part, "all"):
        raise WrongSetting(f"--part is {part!r}; it can be {', '.join(Part)} or all")
    if out is not None:
        require_folder(out)
    settings = Settings.load(**({"bundle": bundle} if bundle else {}))
    networks = load_networks(settings)()
    folder = settings.bundle or SHIPPED
    described = read_description(folder)
    with _stages() as stage:
        findings = evaluate_bundle(
            data,
            None if part == "all" else Part(part),
            described.get("data") or {},
            read_with(networks),
            stage,
        )
    figures = compute_figures(findings)
    rows = {"all": figures["overall"], **figures["by"]["group"], **figures["by"]["condition"]}
    _print_figures([_measured_row(name, row) for name, row in rows.items()], form, 4)
    if any(finding.person.synthetic for finding in findings):
        typer.echo(PHANTOMS, err=True)
    if out is not None:
        write_report(out, findings, figures, networks.identity, data.name)
    if record is not None:
        described["figures"] = {**described.get("figures", {}), record: {"part": part, **figures}}
        write_description(folder, described)
    _require_none_unread({f.study: f.reason or "" for f in findings if f.unreadable})


@app.command(epilog="Example: lumbar compare phantoms/ --work compare/ --format csv")
def compare(
    data: Data,
    work: Annotated[
        Path,
        typer.Option(help="Folder for crops and states, reused by later runs; can be a training's"),
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="compare, or a TOML file; its severity settings apply, except the architecture"
        ),
    ] = "compare",
    only: Annotated[
        list[str] | None, typer.Option(help="Only this candidate; can be repeated")
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Trains six candidates for the severity network alike and prints one table."""
    require_training("matplotlib", "scipy", "sklearn", "tensorboard")
    from lumbar.training.compare import CANDIDATES
    from lumbar.training.compare import compare as compare_candidates
    from lumbar.training.train_bundle import prepare

    if unknown := set(only or ()) - set(CANDIDATES):
        raise WrongSetting(f"--only is {min(unknown)!r}; it can be {', '.join(CANDIDATES)}")
    chosen = _recipe(recipe)
    with _stages() as stage:
        crops, exclusions, parts = prepare(data, work, chosen.seed, stage)
        rows = compare_candidates(crops, parts, work, chosen, stage, only or CANDIDATES)
    _print_figures([_rounded(row) for row in rows], form, len(rows))
    if any(crop.synthetic for crop in crops):
        typer.echo(PHANTOMS, err=True)
    _require_readable(exclusions)


@app.command(epilog="Example: lumbar export bundles/phantom --out exported/ --work bundle.work/")
def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder")],
    out: Annotated[Path, typer.Option(help="Folder to write to")],
    work: Annotated[
        Path | None,
        typer.Option(help="A training's work folder, for its test crops [BUNDLE.work, else noise]"),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--as", help="keras, h5, onnx or tflite; can be repeated")
    ] = None,
    crops: Annotated[
        int, typer.Option(min=1, help="Number of crops to verify each file with")
    ] = 200,
    form: AsFormat = Format.TABLE,
) -> None:
    """Exports both networks for other software; a file whose results differ is refused."""
    require_tensorflow()
    from lumbar.training.crop_files import noise_crops, stored_crops
    from lumbar.training.export import FORMATS, export_bundle
    from lumbar.training.split import Part

    if unknown := set(formats or ()) - set(FORMATS):
        raise WrongSetting(f"--as is {min(unknown)!r}; it can be {', '.join(FORMATS)}")
    if "onnx" in (formats or FORMATS):
        require_training("onnx", "onnxruntime", "tf2onnx")
    folder = work or _work_of(bundle)
    stored = bool(work) or folder.exists()
    images = stored_crops(folder, Part.TEST, crops) if stored else noise_crops(crops)
    rows = export_bundle(bundle, out, formats or list(FORMATS), images)
    print_records(rows, ("file", "bytes", "differs", "crops"), form)
    if not stored:
        typer.echo(
            "Verified with smooth noise; name a training's work folder to use its test crops.",
            err=True,
        )


PHANTOMS = "Phantoms: the figures check the pipeline; they are not clinical figures."
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
    """One line per row; a table has one line per figure, of the first ``shown`` rows."""
    names = list(rows[0])
    if form is not Format.TABLE:
        print_records(rows, names, form)
        return
    columns = [str(row[names[0]]) for row in rows[:shown]]
    lines = []
    for name in names[1:]:
        values = [row[name] for row in rows[:shown]]
        lines.append({"": name} | dict(zip(columns, values, strict=True)))
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
    _require_none_unread({o.study: o.refused or "" for o in outcomes if o.unreadable})


def _require_readable(exclusions: "Sequence[Exclusion]") -> None:
    _require_none_unread({e.study: e.reason for e in exclusions if e.unreadable})


def _require_none_unread(unread: Mapping[str, str]) -> None:
    """Ends with an error, after the results, if studies could not be read; ``unread``: why each."""
    if unread:
        (reason, count), *others = Counter(unread.values()).most_common()
        studies = "1 study" if len(unread) == 1 else f"{len(unread)} studies"
        more = f" ({count}), and {len(others)} other reasons" if others else ""
        raise Permanent(f"{studies} could not be read: {reason}{more}")


def _work_of(bundle: Path) -> Path:
    """The default work folder of a bundle's training, beside the bundle."""
    return bundle.resolve().with_name(f"{bundle.resolve().name}.work")


def _recipe(name: str) -> "Recipe":
    from lumbar.training.recipes import read_recipe

    return read_recipe(name)


@contextmanager
def _stages() -> Iterator[Stage]:
    """A progress bar per stage on standard error; without a terminal, a line when it begins."""
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
