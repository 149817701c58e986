"""Reading files without a running system: `lumbar analyse` and `lumbar classify`.

Nothing is stored in the database.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.output import (
    AsFormat,
    Format,
    print_findings,
    print_how_read,
    print_object,
    print_records,
)
from commands.services import load_networks
from lumbar.errors import NotAnalysable, Permanent, Transient, WrongSetting
from lumbar.networks import require_tensorflow
from lumbar.reports.finding_records import StudyFinding, StudyReference, notice
from lumbar.settings import Settings
from lumbar.spine.anatomy import Condition, Severity
from lumbar.spine.provenance import BundleIdentity
from lumbar.store.temporary import FOLDER, temporary_folder
from lumbar.study_attributes import agreed

if TYPE_CHECKING:
    from lumbar.dicom.discover import MRInstance
    from worker.pipeline import Analysis

app = typer.Typer()


@app.command(epilog="Example: lumbar analyse study/ --format csv --sr report.dcm --png picture.png")
def analyse(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder or zip of them")],
    form: AsFormat = Format.TABLE,
    sr: Annotated[
        Path | None, typer.Option(help="Write the Structured Report to this file")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(help="Write a picture to check the analysis by: levels and every crop"),
    ] = None,
) -> None:
    """Analyses one study and prints its 25 findings, each graded or with the reason why not."""
    from lumbar.dicom.discover import find_instances
    from lumbar.dicom.instance_identity import identify
    from worker.analysis import draft_report, provenance_of, stated_by, why_no_report
    from worker.analysis_picture import picture_of
    from worker.pipeline import examine

    require_tensorflow()
    for option, file in (("--sr", sr), ("--png", png)):
        _require_writable(option, file)
    settings = Settings.load()
    with _scratch(path, settings.home) as scratch:
        instances, refused = find_instances(path, scratch, partial(identify, whole=True))
        networks = load_networks(settings)()
        analysis = examine(instances, networks)
        report = picture = unreported = None
        if analysis.refusal is None and png is not None:
            picture = picture_of(analysis, instances, networks.identity.trained_on.notices)
        if analysis.refusal is None and sr is not None:
            unreported = why_no_report(instances)
        if analysis.refusal is None and sr is not None and unreported is None:
            attributes = agreed(stated_by(instances))
            digests = [sha256(instance.path.read_bytes()).hexdigest() for instance in instances]
            provenance = provenance_of(
                settings.results_sha256, networks, instances, digests, attributes
            )
            draft = draft_report(analysis, instances, provenance, attributes)
            report = draft.finish(datetime.now(UTC), settings.zone)
    reasons = Counter(file.reason for file in refused)
    skipped = [f"{count} files skipped: {reason}" for reason, count in sorted(reasons.items())]
    _print_analysis(analysis, instances, networks.identity, skipped, form)
    if analysis.refusal is not None:
        raise NotAnalysable(analysis.refusal, analysis.choices)
    if sr is not None and report is not None:
        sr.write_bytes(report.content)
        typer.echo(f"Report written to {sr}", err=True)
    if png is not None and picture is not None:
        png.write_bytes(picture)
        typer.echo(f"Picture written to {png}", err=True)
    if unreported is not None:
        raise Permanent(f"no report was written: {unreported}")


def _require_writable(option: str, file: Path | None) -> None:
    """Refuses an output file before the work is done.

    Raises:
        WrongSetting: it names a folder, or a file in a folder that does not exist or is read-only.
    """
    if file is None:
        return
    if file.is_dir():
        raise WrongSetting(f"{option} is {file}, a folder; name a file")
    if not file.parent.is_dir():
        raise WrongSetting(f"{option} is {file}; create the folder {file.parent} first")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise WrongSetting(f"{option} is {file}, which cannot be written")


def _print_analysis(
    analysis: "Analysis",
    instances: "Sequence[MRInstance]",
    bundle: BundleIdentity,
    skipped: Sequence[str],
    form: Format,
) -> None:
    """Prints the findings; of a study that cannot be analysed, only the JSON object."""
    if form is Format.JSON:
        from worker.analysis_record import analysis_record

        print_object(analysis_record(analysis, instances, bundle, skipped))
    elif analysis.refusal is None:
        if form is Format.TABLE:
            print_how_read(analysis.caveats, (*analysis.choices, *skipped))
        study, caveats = StudyReference(analysis.study_instance_uid), analysis.caveats
        print_findings(
            [StudyFinding(study, finding, bundle, caveats) for finding in analysis.findings], form
        )
    for reading in analysis.readings:
        typer.echo(str(reading), err=form is not Format.TABLE)  # programs read findings only


@app.command(epilog="Example: lumbar classify slice.dcm --at 160,142 --format json")
def classify(
    file: Annotated[
        Path, typer.Argument(help="One DICOM image: sagittal T1, sagittal T2/STIR or axial T2")
    ],
    at: Annotated[
        str | None,
        typer.Option(metavar="COLUMN,ROW", help="Crop around this pixel instead of the centre"),
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Prints which condition one image shows and how severe it is, with probabilities."""
    from lumbar.dicom.discover import find_instances
    from lumbar.dicom.instance_identity import identify
    from worker.single_image import classify as classify_image

    require_tensorflow()
    point = _point(at)
    settings = Settings.load()
    with _scratch(file, settings.home) as scratch:
        instances, _ = find_instances(file, scratch, partial(identify, whole=True))
        networks = load_networks(settings)()
        classified = classify_image(instances, networks, point)
    records = [
        {"what": "condition", "class": name, "probability": round(probability, 6)}
        for name, probability in zip((*Condition, "none"), classified.conditions, strict=True)
    ]
    records += [
        {"what": "severity", "class": name, "probability": round(probability, 6)}
        for name, probability in zip(Severity, classified.severities, strict=True)
    ]
    print_records(
        [
            {**record, "bundle": str(networks.identity), "notice": notice(networks.identity)}
            for record in records
        ],
        ("what", "class", "probability", "bundle", "notice"),
        form,
    )


@contextmanager
def _scratch(source: Path, home: Path) -> Iterator[Path]:
    """A folder to unpack a zip into, under ``home``; any other input needs none.

    Raises:
        Transient: it cannot be written.
    """
    from lumbar.dicom.archive import is_zip

    if not is_zip(source):
        yield source
        return
    try:
        with temporary_folder(home / FOLDER) as folder:
            yield folder
    except OSError as error:
        raise Transient(
            f"the zip cannot be unpacked in {home / FOLDER}: {error.strerror}; make room there, or "
            "set LUMBAR_HOME"
        ) from error


def _point(at: str | None) -> tuple[float, float] | None:
    if at is None:
        return None
    try:
        column, row = (float(part) for part in at.split(","))
    except ValueError as error:
        raise WrongSetting(
            f"--at is {at!r}; write COLUMN,ROW in pixels, such as 160,142"
        ) from error
    return column, row
