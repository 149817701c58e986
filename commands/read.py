"""Reading without a system: `lumbar analyse` and `lumbar classify`. Nothing is stored."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from commands.output import Format, console, print_findings
from commands.system import load_networks
from db.queries import StudyFinding
from lumbar.settings import Settings

app = typer.Typer()


@app.command(epilog="Example: lumbar analyse study/ --format csv --sr report.dcm")
def analyse(
    path: Annotated[Path, typer.Argument(help="A folder, zip or file of DICOM")],
    form: Annotated[Format, typer.Option("--format", help="How to print")] = Format.TABLE,
    sr: Annotated[Path | None, typer.Option(help="Write the Structured Report to this file")] = None,
) -> None:
    """Reads one study: 25 findings, each graded or with the reason why not."""
    from lumbar.dicom.folder import find_instances
    from worker.analysis import provenance_of, report_of
    from worker.pipeline import analyse as analyse_instances

    settings = Settings.load()
    with tempfile.TemporaryDirectory() as scratch:
        instances, refused = find_instances(path, Path(scratch))
        networks = load_networks(settings)()
        analysis = analyse_instances(instances, networks)
        report = None
        if sr is not None:
            report = report_of(analysis, instances, provenance_of(settings.results_sha256, networks, instances))
    if form is Format.TABLE:
        for line in (*analysis.roles.choices, *analysis.levels.notes):
            console().print(line)
        for reason in sorted({file.reason for file in refused}):
            count = sum(file.reason == reason for file in refused)
            console().print(f"{count} files passed over: {reason}")
    rows = [StudyFinding(analysis.study_instance_uid, finding, networks.identity) for finding in analysis.findings]
    print_findings(rows, form)
    if sr is not None and report is not None:
        sr.write_bytes(report.content)
        typer.echo(f"Report written to {sr}", err=True)
