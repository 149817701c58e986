"""The PREVIEW: uploaded files in, an answer for whoever sent them out. The files go at once, whatever happens."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from db import previews
from db.context import SiteContext
from db.job_lifecycle import LeaseLostError
from db.preview_results import Answer, Grade
from db.previews import Claimed
from lumbar.dicom.discover import MRInstance, find_instances
from lumbar.dicom.instance_identity import Identity, identify
from lumbar.errors import NotAnalysable, NotDicom, Permanent, Transient
from lumbar.networks import Networks
from lumbar.spine.findings import Finding
from lumbar.store.files import StoreFull
from worker import single_image, store_upload
from worker.pipeline import Analysis, analyse, picture_of
from worker.runner import Held, kept_alive

log = structlog.get_logger()

HEADERS_WITHIN_S = 300  # of all files; a scanner's take milliseconds each


def read_next(site: SiteContext, networks: Callable[[], Networks]) -> bool:
    """Claims the upload that has waited longest and reads it; False when there was none."""
    with site.database.transaction() as session:
        claimed = previews.claim(session, lease_s=site.settings.lease_s)
    if claimed is None:
        return False
    ids: dict[str, object] = {"preview": claimed.id, "attempt": claimed.attempts}
    log.info("preview.started", **ids)
    held = Held(ids, lambda: _extend(site, claimed), lambda why: _give_back(site, claimed, why))
    with kept_alive(site.settings, held):
        ended = _end(site, networks, claimed)
    log.info("preview.ended" if ended else "preview.given_back", **ids)
    return True


def _extend(site: SiteContext, claimed: Claimed) -> None:
    with site.database.transaction() as session:
        previews.heartbeat(session, claimed, lease_s=site.settings.lease_s)


def _give_back(site: SiteContext, claimed: Claimed, why: str) -> bool:
    with site.database.transaction() as session:
        return previews.give_back(session, claimed, why)


def _end(site: SiteContext, networks: Callable[[], Networks], claimed: Claimed) -> bool:
    """Whether it came to an end here; else the files are left for another try, or to whoever has it now."""
    ended = False
    scratch = previews.folder(site, claimed.name) / previews.SCRATCH / str(claimed.attempts)
    try:
        answer = _answer(site, networks, claimed, scratch)
        with site.database.transaction() as session:
            previews.finish(session, claimed, answer)
        ended = True
    except LeaseLostError:
        log.info("preview.overtaken", preview=claimed.id)
    except Permanent as error:
        told = error.notes if isinstance(error, NotAnalysable) else ()
        with site.database.transaction() as session:
            ended = previews.refuse(session, claimed, str(error), told)
    except Transient as error:
        ended = _give_back(site, claimed, str(error))
    except OSError as error:  # the disk is full, or somebody had it forgotten
        ended = _give_back(site, claimed, f"the disk refused it: {error.strerror}")
    except Exception as error:  # the worker outlives whatever an upload makes it meet
        log.exception("preview.fault", preview=claimed.id)
        ended = _give_back(site, claimed, f"an internal fault ({type(error).__name__})")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if ended:
            previews.remove_files(site, claimed.name)
    return ended


def _answer(
    site: SiteContext, networks: Callable[[], Networks], claimed: Claimed, scratch: Path
) -> Answer:
    if (fill := site.store.fill_ratio()) > site.settings.disk_refuse_above:
        raise StoreFull(f"the disk is {fill:.0%} full")
    folder = previews.folder(site, claimed.name)
    scratch.mkdir(mode=0o700)
    uploaded = list((folder / previews.UPLOAD).iterdir())
    given = uploaded[0] if len(uploaded) == 1 else folder / previews.UPLOAD
    check = _confined(site)
    if claimed.keep:
        return store_upload.keep(site, given, scratch, check)
    instances, refused = find_instances(given, scratch, check)
    with site.database.transaction() as session:
        previews.tell_images(session, claimed, sum(len(found.slices) for found in instances))
    answer, picture = _read(instances, networks())
    (folder / previews.PICTURE).write_bytes(picture)
    counts = Counter(file.reason for file in refused)
    passed_over = (
        f"{count} {'file' if count == 1 else 'files'} passed over: {why}"
        for why, count in counts.items()
    )
    return Answer(**(vars(answer) | {"choices": (*answer.choices, *passed_over)}))


def _confined(site: SiteContext) -> Callable[[Path], Identity]:
    """A file's identity by a child process with limits: what kills the child is not opened here."""
    until = time.monotonic() + HEADERS_WITHIN_S
    largest = site.settings.maximum_instance_mib * 2**20

    def check(file: Path) -> Identity:
        if time.monotonic() > until:
            raise NotAnalysable("the files take too long to read; upload fewer of them")
        if file.stat().st_size > largest:
            raise NotDicom("the file is larger than an image may be")
        return identify(file)

    return check


def _read(instances: Sequence[MRInstance], networks: Networks) -> tuple[Answer, bytes]:
    """The answer and the picture to check it by. Raises NotAnalysable."""
    try:
        analysis = analyse(instances, networks)
        if not analysis.readings and not any(finding.assessed for finding in analysis.findings):
            raise NotAnalysable(
                f"nothing could be assessed: {analysis.findings[0].reason}", analysis.choices
            )
    except NotAnalysable as refusal:
        if sum(len(found.slices) for found in instances) != 1:
            raise
        return _read_alone(instances, networks, refusal)
    return _of_study(analysis, networks), picture_of(
        analysis, instances, networks.identity.trained_on.notices
    )


def _read_alone(
    instances: Sequence[MRInstance], networks: Networks, refusal: NotAnalysable
) -> tuple[Answer, bytes]:
    """One image that shows no place to look at is classified by its middle, whatever that shows."""
    seen = single_image.classify(instances, networks)
    notices = networks.identity.trained_on.notices
    nothing_seen = max(seen.conditions) == seen.conditions[-1]
    answer = Answer(
        conditions=seen.conditions,
        severities=seen.severities,
        caveats=("VGG16 sees none of the conditions in it, so the severity means nothing",)
        if nothing_seen
        else (),
        choices=(f"The middle of the image was looked at, for {refusal}",),
        notices=notices,
        weights=str(networks.identity),
    )
    return answer, single_image.picture_of(seen, instances, notices)


def _of_study(analysis: Analysis, networks: Networks) -> Answer:
    return Answer(
        findings=() if analysis.readings else tuple(map(_grade, analysis.findings)),
        readings=tuple(
            Grade(r.condition, None, r.probabilities, r.shows) for r in analysis.readings
        ),
        caveats=analysis.caveats,
        choices=analysis.choices,
        notices=networks.identity.trained_on.notices,
        weights=str(networks.identity),
    )


def _grade(finding: Finding) -> Grade:
    return Grade(
        finding.condition, finding.level, finding.probabilities or (), finding.shows, finding.reason
    )
