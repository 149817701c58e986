"""Retention: images of finished studies are removed by age, and sooner if the disk fills up.

A study is finished when it has ended and none of its jobs is pending or running. Findings and
reports remain. Removal takes two steps, each under the study's lock: the rows are marked, then the
files are deleted. An image that is sent again lies in ``arrived`` until its registration, under the
same lock, unmarks its row and puts its file back (``db.registration``). A process killed between
the two leaves files that ``db.reconcile`` removes.
"""

from contextlib import suppress
from typing import Any

from sqlalchemy import Select, exists, select, true, update

from db import rejections, studies
from db.context import SiteContext
from db.models import UNFINISHED_JOB_STATES, AuditEvent, Instance, Job, Series, Study
from db.types import db_now
from lumbar.log import get_logger

log = get_logger()

BATCH = 100  # studies per round; the next round continues
DAY_S = 86400.0


def remove_images(site: SiteContext) -> int:
    """Removes the images of every study beyond its retention, the oldest first.

    Those whose retention has expired upstream, according to rejection notes, come before.
    Returns the number of studies.

    Raises:
        Transient: the database or the disk is unavailable.
    """
    keep_s = site.settings.keep_days * DAY_S
    removed = _remove_expired(site)
    for study_id in _finished(site, older_than_s=keep_s) if keep_s else []:
        removed += remove(site, study_id, f"older than {site.settings.keep_days:g} days")
    if site.store.fill_ratio() <= site.settings.disk_remove_above:
        return removed
    for study_id in _finished(site):
        if (fill := site.store.fill_ratio()) <= site.settings.disk_remove_above:
            break
        removed += remove(site, study_id, f"the disk is {fill:.0%} full")
    else:
        log.warning("retention.disk_still_full", fill=round(site.store.fill_ratio(), 3))
    return removed


def _remove_expired(site: SiteContext) -> int:
    with site.database.reading() as session:
        ids = rejections.studies_with_expired(session)
    return sum(
        remove(site, study_id, "their retention has expired upstream", expired=True)
        for study_id in ids
    )


def remove(site: SiteContext, study_id: int, why: str, *, expired: bool = False) -> bool:
    """Removes a study's images and other objects; False if it is not finished after all.

    ``expired``: only those that a note names whose reason is that their retention has expired.
    """
    with site.database.transaction() as session:
        studies.lock(session, study_id)
        if session.scalar(_finished_studies().where(Study.id == study_id)) is None:
            return False
        series = select(Series.id).where(Series.study_id == study_id)
        named = Instance.id.in_(rejections.expired(session, study_id)) if expired else true()
        session.execute(
            update(Instance)
            .where(Instance.series_id.in_(series), Instance.removed_at.is_(None), named)
            .values(removed_at=db_now())
        )
        left = exists().where(Instance.series_id.in_(series), Instance.removed_at.is_(None))
        session.execute(
            update(Study).where(Study.id == study_id, ~left).values(images_removed_at=db_now())
        )
        session.add(
            AuditEvent(
                event="study.images_removed", actor="sweep", study_id=study_id, detail={"why": why}
            )
        )
    unlink_removed(site, study_id)
    log.info("retention.removed", study=study_id, why=why)
    return True


def unlink_removed(site: SiteContext, study_id: int) -> None:
    """Deletes the files of images that are marked as removed."""
    with site.database.transaction() as session:
        studies.lock(session, study_id)
        files = session.scalars(
            select(Instance.file)
            .join(Series)
            .where(Series.study_id == study_id, Instance.removed_at.is_not(None))
        ).all()
        for file in files:
            site.store.remove(file)
        with suppress(FileNotFoundError):
            site.store.sync(set(files))


def _finished(site: SiteContext, older_than_s: float = 0) -> list[int]:
    """Finished studies that still have images, in the order in which they ended.

    With ``older_than_s``, only those that ended before, and of which nothing has arrived since.
    """
    recent = exists().where(
        Instance.series_id == Series.id,
        Series.study_id == Study.id,
        Instance.received_at > Study.ended_at,
        Instance.received_at >= db_now(-older_than_s),
    )
    statement = _finished_studies().where(Study.ended_at < db_now(-older_than_s))
    if older_than_s:
        statement = statement.where(~recent)
    statement = statement.order_by(Study.ended_at)
    with site.database.reading() as session:
        return list(session.scalars(statement.limit(BATCH)))


def _finished_studies() -> Select[Any]:
    unfinished = exists().where(Job.study_id == Study.id, Job.state.in_(UNFINISHED_JOB_STATES))
    return select(Study.id).where(
        Study.state.in_(studies.ENDED), Study.images_removed_at.is_(None), ~unfinished
    )
