"""Retention: images of finished studies are removed by age, and sooner if the disk fills up.

A study is finished when it has ended, its reports have been delivered, no correction of it waits,
and it has been read or has left the worklist unread (``db.expiry``). Others keep their images, even
on a full disk. Findings and reports remain. Ages are counted in operating time
(``db.operating_time``).

Removal takes two steps, each under the study's lock: the rows are marked, then the files are
deleted. Where the disk refuses that, the rows stay marked, and each round begins with those files.
It goes on with other studies unless the disk refuses ``MAX_REFUSED`` of them. An image that is
sent again lies in ``arrived`` until its registration, under the same lock, unmarks its row and puts
its file back (``db.registration``). A process killed between the two leaves files that
``db.reconcile`` removes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select, true, tuple_, update
from sqlalchemy.orm import Session

from db import audit, jobs, operating_time, rejections, studies
from db.context import SiteContext
from db.models import Instance, ReadingState, Series, Study, StudyState
from db.operating_time import DAY_S, HOUR_S
from db.read_models.corrections import pending
from db.reading_states import is_in
from db.types import db_now
from lumbar.log import get_logger
from lumbar.store.files import INSTANCES, StoreFull, raising_store_full

log = get_logger()

BATCH = 100  # studies that are listed at once
MAX_REFUSED = 5  # studies whose files cannot be deleted, before nothing more is removed


def remove_images(site: SiteContext) -> int:
    """Removes the images of every study beyond its retention, the oldest first.

    Those whose retention has expired upstream, according to rejection notes, come before.
    Returns the number of studies.

    Raises:
        Transient: the database or the disk is unavailable, or the disk refuses to delete some
            files; the others' were deleted, unless it refuses many.
    """
    retention = _Round(site)
    retention.remove_images()
    if retention.refusal is not None:
        raise retention.refusal
    return retention.removed


class _Round:
    """One round of retention."""

    def __init__(self, site: SiteContext) -> None:
        self._site = site
        self.removed = 0  # studies
        self.refusal: StoreFull | None = None  # the last error of the disk
        self._refused: set[int] = set()  # studies whose files it does not delete

    def remove_images(self) -> None:
        """See ``remove_images``."""
        settings, store = self._site.settings, self._site.store
        self._complete_removals()
        self._remove_expired()
        if settings.keep_days:
            for study_id in _finished(self._site, settings.keep_days * DAY_S):
                self._remove(study_id, f"older than {settings.keep_days:g} days")
        if store.fill_ratio() <= settings.disk_remove_above:
            return
        for study_id in _finished(self._site, settings.keep_at_least_hours * HOUR_S):
            if (fill := store.fill_ratio()) <= settings.disk_remove_above:
                break
            self._remove(study_id, f"the disk is {fill:.0%} full")

    def _complete_removals(self) -> None:
        """Deletes the files that could not be deleted when their studies' images were removed."""
        with self._site.database.reading() as session:
            ids = session.scalars(select(Study.id).where(Study.removal_pending.is_(True))).all()
        for study_id in ids:
            with self._going_on(study_id):
                unlink_removed(self._site, study_id)

    def _remove_expired(self) -> None:
        with self._site.database.reading() as session:
            ids = rejections.studies_with_expired(session)
        for study_id in ids:
            self._remove(study_id, "their retention has expired upstream", expired=True)

    def _remove(self, study_id: int, why: str, *, expired: bool = False) -> None:
        with self._going_on(study_id):
            self.removed += remove(self._site, study_id, why, expired=expired)

    @contextmanager
    def _going_on(self, study_id: int) -> Iterator[None]:
        """Goes on although the disk refuses to delete a study's files, unless it is one of many.

        Raises:
            StoreFull: it has refused ``MAX_REFUSED`` studies, or is not mounted.
        """
        try:
            yield
        except StoreFull as error:
            self._site.store.require_kind(INSTANCES)
            log.error("retention.refused", study=study_id, why=str(error))
            self.refusal = error
            self._refused.add(study_id)
            if len(self._refused) >= MAX_REFUSED:
                raise


def remove(site: SiteContext, study_id: int, why: str, *, expired: bool = False) -> bool:
    """Removes a study's images and other objects; False if it is not finished after all.

    ``expired``: only those that a note names whose reason is that their retention has expired.
    """
    with site.database.transaction() as session:
        studies.lock(session, study_id)
        if session.scalar(_finished_studies().where(Study.id == study_id)) is None:
            return False
        if pending(session, study_id) is not None:
            return False
        if not expired and not _is_kept_long_enough(site, session, study_id):
            return False
        series = select(Series.id).where(Series.study_id == study_id)
        named = Instance.id.in_(rejections.expired(session, study_id)) if expired else true()
        mark_removed(session, study_id, named)
        left = exists().where(Instance.series_id.in_(series), Instance.removed_at.is_(None))
        session.execute(
            update(Study).where(Study.id == study_id, ~left).values(images_removed_at=db_now())
        )
        sweep = audit.on_this_host("sweep")
        audit.note(session, "study.images_removed", sweep, study_id=study_id, why=why)
    unlink_removed(site, study_id)
    log.info("retention.removed", study=study_id, why=why)
    return True


def mark_removed(session: Session, study_id: int, which: ColumnElement[bool]) -> None:
    """Marks some of a locked study's instances as removed, for ``unlink_removed``."""
    series = select(Series.id).where(Series.study_id == study_id)
    session.execute(
        update(Instance)
        .where(Instance.series_id.in_(series), Instance.removed_at.is_(None), which)
        .values(removed_at=db_now())
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(Study)
        .where(Study.id == study_id)
        .values(removal_pending=True)
        .execution_options(synchronize_session=False)
    )


def unlink_removed(site: SiteContext, study_id: int) -> None:
    """Deletes the files of images that are marked as removed.

    Raises:
        Transient: the disk refuses, or the database is unavailable; repeat it.
    """
    with site.database.transaction() as session:
        studies.lock(session, study_id)
        files = session.scalars(
            select(Instance.file)
            .join(Series)
            .where(Series.study_id == study_id, Instance.removed_at.is_not(None))
        ).all()
        if files:
            site.store.require_kind(INSTANCES)
        for file in files:
            site.store.remove(file)
        with raising_store_full(site.store.root):
            site.store.sync({file for file in files if site.store.path(file).parent.exists()})
        session.execute(update(Study).where(Study.id == study_id).values(removal_pending=False))


def _is_kept_long_enough(site: SiteContext, session: Session, study_id: int) -> bool:
    """Whether nothing of the study is younger than images are kept in any case."""
    oldest = operating_time.read(session) - site.settings.keep_at_least_hours * HOUR_S
    kept_from = select(Study.kept_from_s).where(Study.id == study_id)
    return session.scalars(kept_from).one() <= oldest


def _finished(site: SiteContext, age_s: float) -> Iterator[int]:
    """Finished studies that still have images and are so old, the oldest first."""
    last = (-1, 0)
    while True:
        with site.database.reading() as session:
            oldest = operating_time.read(session) - age_s
            statement = (
                _finished_studies()
                .add_columns(Study.kept_from_s)
                .where(Study.kept_from_s <= oldest)
                .where(tuple_(Study.kept_from_s, Study.id) > tuple_(*last))
                .order_by(Study.kept_from_s, Study.id)
            )
            rows = session.execute(statement.limit(BATCH)).all()
        if not rows:
            return
        yield from (study_id for study_id, _ in rows)
        last = rows[-1][1], rows[-1][0]


def _finished_studies() -> Select[Any]:
    settled = (
        ~is_in(ReadingState.WAITING)
        | (Study.state == StudyState.NO_IMAGES)  # there is nothing to read
    )
    return select(Study.id).where(
        Study.state.in_(studies.ENDED),
        Study.images_removed_at.is_(None),
        settled,
        ~jobs.has_undelivered_report(),
    )
