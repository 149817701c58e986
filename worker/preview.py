"""The PREVIEW job: reads uploaded files, writes a result for their uploader, deletes the files."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from db import disk_usage, job_lifecycle, leases, previews
from db.context import SiteContext
from db.leases import LeaseLostError
from db.preview_results import PreviewFinding, PreviewResult
from db.previews import ClaimedPreview
from lumbar.dicom.discover import MRInstance, RejectedFile, find_instances
from lumbar.dicom.instance_identity import Identity, identify
from lumbar.errors import NotAnalysable, NotDicom, Permanent
from lumbar.networks import Networks
from lumbar.spine.findings import Finding
from lumbar.store.files import StoreFull
from worker import single_image, store_upload
from worker.analysis import why_no_report
from worker.analysis_picture import picture_of
from worker.pipeline import Analysis, analyse

HEADERS_LIMIT_S = 300  # for all files; those of a scanner take milliseconds each


def read_upload(
    site: SiteContext, networks: Callable[[], Networks], claimed: ClaimedPreview
) -> None:
    """Reads a claimed upload and writes its result.

    Raises:
        LeaseLostError: deleted or recovered meanwhile; nothing was written.
        StoreFull: the disk failed; the files are kept for another attempt.
        Transient: the database failed; the files are kept, too.
    """
    scratch = previews.folder(site, claimed.name) / previews.SCRATCH / str(claimed.lease.attempts)
    try:
        result = _read(site, networks, claimed, scratch)
        with site.database.transaction() as session:
            job_lifecycle.end_preview(session, claimed, result)
    except Permanent as error:
        notes = error.notes if isinstance(error, NotAnalysable) else ()
        with site.database.transaction() as session:
            job_lifecycle.refuse_preview(session, claimed, str(error), notes)
    except OSError as error:  # the disk is full, or the upload was deleted meanwhile
        raise StoreFull(f"the upload's files cannot be used: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    previews.remove_files(site, claimed.name)


def _read(
    site: SiteContext, networks: Callable[[], Networks], claimed: ClaimedPreview, scratch: Path
) -> PreviewResult:
    disk_usage.require_room(site)
    folder = previews.folder(site, claimed.name)
    scratch.mkdir(mode=0o700)
    uploaded = list((folder / previews.UPLOAD).iterdir())
    source = uploaded[0] if len(uploaded) == 1 else folder / previews.UPLOAD
    check = _sandboxed_check(site)
    if claimed.keep:
        return store_upload.ingest_files(site, source, scratch, check)
    instances, refused = find_instances(
        source, scratch, check, partial(disk_usage.require_room, site)
    )
    images = sum(len(instance.slices) for instance in instances)
    with site.database.transaction() as session:
        if not leases.write(session, claimed.lease, images=images):
            raise LeaseLostError
    result, picture = _analysed(instances, networks())
    (folder / previews.PICTURE).write_bytes(picture)
    unreported = why_no_report(instances)
    note = (f"no report could be written: {unreported}",) if unreported else ()
    return replace(result, choices=(*result.choices, *_skipped(refused), *note))


def _skipped(refused: Sequence[RejectedFile]) -> tuple[str, ...]:
    counts = Counter(file.reason for file in refused)
    return tuple(
        f"{count} {'file' if count == 1 else 'files'} skipped: {why}"
        for why, count in counts.items()
    )


def _sandboxed_check(site: SiteContext) -> Callable[[Path], Identity]:
    """Reads files' identities in a child process: a file that kills it is never opened here."""
    deadline = time.monotonic() + HEADERS_LIMIT_S
    max_size = site.settings.maximum_instance_mib * 2**20

    def check(file: Path) -> Identity:
        if time.monotonic() > deadline:
            raise NotAnalysable("the files take too long to read; upload fewer of them")
        if file.stat().st_size > max_size:
            raise NotDicom("the file is larger than an image may be")
        return identify(file, whole=True)

    return check


def _analysed(instances: Sequence[MRInstance], networks: Networks) -> tuple[PreviewResult, bytes]:
    """The result and the picture to check it by.

    Raises:
        NotAnalysable: nothing could be assessed, and it is not a single image.
    """
    try:
        analysis = analyse(instances, networks)
        analysis.require_assessed(readings_suffice=True)
    except NotAnalysable as refusal:
        if sum(len(instance.slices) for instance in instances) != 1:
            raise
        return _classified(instances, networks, refusal)
    picture = picture_of(analysis, instances, networks.identity.trained_on.notices)
    return _result(analysis, networks), picture


def _classified(
    instances: Sequence[MRInstance], networks: Networks, refusal: NotAnalysable
) -> tuple[PreviewResult, bytes]:
    """A single image in which nothing is located is classified at its centre."""
    classification = single_image.classify(instances, networks)
    notices = networks.identity.trained_on.notices
    caveats: tuple[str, ...] = ()
    if max(classification.conditions) == classification.conditions[-1]:
        caveats = ("VGG16 sees none of the conditions in the image: the severity is meaningless",)
    result = PreviewResult(
        conditions=classification.conditions,
        severities=classification.severities,
        caveats=caveats,
        choices=(f"The middle of the image was classified, because {refusal}",),
        notices=notices,
        weights=str(networks.identity),
    )
    return result, single_image.picture_of(classification, instances, notices)


def _result(analysis: Analysis, networks: Networks) -> PreviewResult:
    readings = (
        PreviewFinding(reading.condition, None, reading.probabilities, reading.shows)
        for reading in analysis.readings
    )
    return PreviewResult(
        findings=() if analysis.readings else tuple(map(_finding, analysis.findings)),
        readings=tuple(readings),
        caveats=analysis.caveats,
        choices=analysis.choices,
        notices=networks.identity.trained_on.notices,
        weights=str(networks.identity),
    )


def _finding(finding: Finding) -> PreviewFinding:
    return PreviewFinding(
        finding.condition, finding.level, finding.probabilities or (), finding.shows, finding.reason
    )
