"""`lumbar phantom`: synthetic studies with known truth."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from commands.requirements import require_folder
from lumbar.errors import WrongSetting

app = typer.Typer()


@app.command(epilog="Example: lumbar phantom phantoms/ --studies 100 --seed 1")
def phantom(
    out: Annotated[Path, typer.Argument(help="New or empty folder to write to")],
    studies: Annotated[int, typer.Option(min=1, help="How many studies")] = 10,
    held_out: Annotated[
        bool,
        typer.Option(
            help="Scanner families and spines outside all training data of the shipped weights"
        ),
    ] = False,
    odd: Annotated[
        bool,
        typer.Option(
            help="Include transitional vertebrae, images without the sacrum and other regions"
        ),
    ] = False,
    pitfalls: Annotated[
        bool,
        typer.Option(help="Plant each irregularity of the real data in one of the first studies"),
    ] = False,
    as_rsna: Annotated[
        bool,
        typer.Option(
            "--as-rsna",
            help="Headers as in the RSNA 2024 files: no class or times, repeated UIDs, RLE",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes")] = 1,
) -> None:
    """Writes a synthetic data set in the RSNA 2024 layout, including its CSV files."""
    from lumbar.phantoms import write_data_set
    from lumbar.phantoms.pitfalls import PITFALLS, plant_pitfalls

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WrongSetting(f"{out} is not an empty folder; name a new one")
    if pitfalls and studies < len(PITFALLS):
        raise WrongSetting(f"--pitfalls needs at least {len(PITFALLS)} studies")
    require_folder(out)
    with Progress(transient=True) as progress:
        bar = progress.add_task("Phantom studies", total=studies)
        write_data_set(
            out,
            studies,
            seed,
            held_out=held_out,
            odd=odd,
            as_rsna=as_rsna,
            advance=lambda: progress.advance(bar),
        )
    for pitfall, study in plant_pitfalls(out).items() if pitfalls else ():
        typer.echo(f"{study}: {pitfall}")
    typer.echo(f"{studies} studies in {out} (synthetic: no figure on them is clinical)")
