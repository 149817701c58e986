"""Uploads that are read once: a row each in a queue of their own, files in a folder of their own, and both go again.

As in ``db.jobs``, a worker claims a row by one conditional UPDATE and holds it by a lease by the database's clock.
"""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Update, delete, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from db import audit, studies
from db.accounts import Actor
from db.context import SiteContext
from db.job_lifecycle import LeaseLostError
from db.jobs import RELEASED
from db.models import JobState, Permission, Preview, User
from db.preview_results import Answer
from db.types import db_now
from lumbar.errors import NotFound, Permanent
from lumbar.store.files import StoreFull

log = structlog.get_logger()

MAX_WAITING = 3  # of one user
ATTEMPTS = 3
KEPT_S = 3600.0  # after its last change
AGAIN_S = 5.0  # the wait before what failed is tried again
ENDED = (JobState.DONE, JobState.DEAD)
UPLOAD, SCRATCH, PICTURE = "upload", "scratch", "picture.png"  # within a preview's folder


class TooManyWaiting(Permanent):
    """A user has as many uploads under way as one may have."""


@dataclass(frozen=True)
class Claimed:
    """A preview in one's hands; everything is written under ``lease_token``."""

    id: int
    name: str
    user: str
    keep: bool
    attempts: int  # this one included
    lease_token: str


def folder(site: SiteContext, name: str) -> Path:
    """Where a preview's files lie: ``upload``, and in the end the picture."""
    return site.settings.home / "previews" / name


def create(site: SiteContext, user_id: int, *, keep: bool) -> str:
    """A new preview to upload to; returns its name. Raises TooManyWaiting, StoreFull, DatabaseUnavailable."""
    name = secrets.token_hex(16)
    with site.database.transaction() as session:
        session.execute(
            select(User.id).where(User.id == user_id).with_for_update()
        )  # two at once are counted in turn
        unfinished = (Preview.user_id == user_id, Preview.state.not_in(ENDED))
        if (session.scalar(select(func.count()).where(*unfinished)) or 0) >= MAX_WAITING:
            raise TooManyWaiting(
                f"{MAX_WAITING} of your uploads are not read yet; wait for one, or forget one"
            )
        session.add(Preview(name=name, user_id=user_id, keep=keep))
    place = folder(site, name)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for new in (place, place / UPLOAD, place / SCRATCH):
            new.mkdir(mode=0o700)
    except OSError as error:
        forget(site, name)
        raise StoreFull(f"an upload cannot be written: {error.strerror}") from error
    return name


def arrived(session: Session, name: str, *, files: int, size: int) -> None:
    """The upload is whole: from now on it is due. Raises NotFound where it was forgotten meanwhile."""
    values = {"uploaded_at": db_now(), "files": files, "size": size}
    if not _changed(
        session, _change(Preview.name == name, Preview.uploaded_at.is_(None)).values(**values)
    ):
        raise NotFound("the upload was forgotten before it had arrived; try it again")


def find(session: Session, name: str, actor: Actor) -> Preview:
    """A preview of the actor's own, or anybody's for an administrator. Raises NotFound, whichever is the reason."""
    found = session.scalar(select(Preview).where(Preview.name == name))
    if found is None or not (found.user_id == actor.user_id or actor.may(Permission.ADMINISTER)):
        raise NotFound("there is no such upload; it may have been forgotten")
    return found


def of_user(session: Session, user_id: int) -> list[Preview]:
    """A user's, the newest first."""
    return list(
        session.scalars(
            select(Preview).where(Preview.user_id == user_id).order_by(Preview.id.desc())
        )
    )


def due(session: Session, limit: int) -> list[int]:
    """Those that wait for a worker, the oldest first."""
    waiting = (Preview.state == JobState.PENDING, Preview.uploaded_at.is_not(None))
    return list(
        session.scalars(select(Preview.id).where(*waiting).order_by(Preview.id).limit(limit))
    )


def claim(session: Session, *, lease_s: float) -> Claimed | None:
    """Takes the oldest that is due; None when there is none, or others got there first."""
    for preview_id in due(session, MAX_WAITING * 4):
        taken = _change(Preview.id == preview_id, Preview.state == JobState.PENDING).values(
            state=JobState.RUNNING,
            lease_token=secrets.token_hex(16),
            lease_expires_at=db_now(lease_s),
            attempts=Preview.attempts + 1,
        )
        if _changed(session, taken):
            return _claimed(session.get_one(Preview, preview_id, populate_existing=True))
    return None


def heartbeat(session: Session, claimed: Claimed, *, lease_s: float) -> bool:
    """Extends the lease; False when it is lost."""
    return _write(session, claimed, lease_expires_at=db_now(lease_s))


def tell_images(session: Session, claimed: Claimed, images: int) -> None:
    """Notes how many images were found, for who waits. Raises LeaseLostError."""
    if not _write(session, claimed, images=images):
        raise LeaseLostError


def finish(session: Session, claimed: Claimed, answer: Answer) -> None:
    """Writes the answer. Raises LeaseLostError, and then nothing of this transaction may be kept."""
    ended = {"state": JobState.DONE, "ended_at": db_now(), "answer": answer.stored()}
    if not _write(session, claimed, **ended, **RELEASED):
        raise LeaseLostError
    if not claimed.keep:
        audit.note(session, "upload.analysed", claimed.user, preview=claimed.id)
    for uid in answer.studies:
        study_id = studies.find(session, uid).id
        audit.note(session, "upload.kept", claimed.user, study_id=study_id, preview=claimed.id)


def refuse(session: Session, claimed: Claimed, reason: str, told: tuple[str, ...]) -> bool:
    """Ends it well, with the reason why nothing can be read; False, and nothing is written, where the lease is lost."""
    ended = {
        "state": JobState.DONE,
        "ended_at": db_now(),
        "reason": reason,
        "answer": Answer(choices=told).stored(),
    }
    written = _write(session, claimed, **ended, **RELEASED)
    if written:
        audit.note(session, "upload.not_analysable", claimed.user, preview=claimed.id)
    return written


def bury(session: Session, claimed: Claimed, reason: str) -> bool:
    """Ends it after too many tries; False where the lease is lost."""
    buried = _write(
        session, claimed, state=JobState.DEAD, ended_at=db_now(), reason=reason, **RELEASED
    )
    if buried:
        audit.note(session, "upload.failed", claimed.user, preview=claimed.id)
        log.error("preview.dead", preview=claimed.id, attempts=claimed.attempts)
    return buried


def give_back(session: Session, claimed: Claimed, reason: str) -> bool:
    """Another try in a moment, or the end of it after as many as there may be; whether it ended."""
    if claimed.attempts >= ATTEMPTS:
        return bury(session, claimed, reason)
    _write(
        session, claimed, lease_expires_at=db_now(AGAIN_S)
    )  # then the sweep finds it as it finds a lost one
    return False


def expired(session: Session) -> list[Claimed]:
    """Those whose worker was not heard of until the lease ended."""
    lost = select(Preview).where(
        Preview.state == JobState.RUNNING, Preview.lease_expires_at < db_now()
    )
    return [_claimed(preview) for preview in session.scalars(lost.order_by(Preview.id))]


def recover(site: SiteContext, lost: Claimed) -> bool:
    """Gives it to another worker, or ends it. False when its worker was heard of after all."""
    again = lost.attempts < ATTEMPTS
    held = (*_held(lost), Preview.lease_expires_at < db_now())
    with site.database.transaction() as session:
        if again:
            return _changed(session, _change(*held).values(state=JobState.PENDING, **RELEASED))
        still = session.scalar(select(Preview.id).where(*held)) is not None
        ended = still and bury(
            session, lost, f"its worker was lost {ATTEMPTS} times; it may be too large"
        )
    if ended:
        remove_files(site, lost.name)
    return ended


def forget(site: SiteContext, name: str) -> None:
    """Row, files and answer. A worker that is at it finds its lease gone. Raises Transient."""
    with site.database.transaction() as session:
        session.execute(delete(Preview).where(Preview.name == name))
    shutil.rmtree(folder(site, name), ignore_errors=True)


def remove_files(site: SiteContext, name: str) -> None:
    """What was uploaded and unpacked; the picture stays for the answer."""
    for part in (UPLOAD, SCRATCH):
        shutil.rmtree(folder(site, name) / part, ignore_errors=True)


def tidy(site: SiteContext) -> int:
    """Forgets answers, and uploads that never arrived, after an hour; removes what killed processes left.

    What waits for a worker waits, however long. Returns how many folders went.

    Folders are listed before rows: a row is written before its folder is made.
    """
    with site.database.reading() as session:
        last = func.coalesce(Preview.ended_at, Preview.uploaded_at, Preview.created_at)
        over = Preview.state.in_(ENDED) | Preview.uploaded_at.is_(None)
        old = select(Preview.name).where(over, last < db_now(-KEPT_S))
        forgotten = list(session.scalars(old))
    for name in forgotten:
        forget(site, name)
    try:
        there = {place.name for place in folder(site, "").iterdir() if place.is_dir()}
    except FileNotFoundError:
        return len(forgotten)
    with site.database.reading() as session:
        states = {
            name: state for name, state in session.execute(select(Preview.name, Preview.state))
        }  # noqa: C416
    for name in there:
        if name not in states:
            shutil.rmtree(folder(site, name), ignore_errors=True)
        elif states[name] in ENDED:
            remove_files(site, name)
    gone = len(forgotten) + len(there - states.keys())
    if gone:
        log.info("previews.forgotten", count=gone)
    return gone


def _claimed(row: Preview) -> Claimed:
    return Claimed(row.id, row.name, row.user.name, row.keep, row.attempts, row.lease_token or "")


def _change(*where: ColumnElement[bool]) -> Update:
    return update(Preview).where(*where).execution_options(synchronize_session=False)


def _changed(session: Session, change: Update) -> bool:
    return session.execute(change).rowcount == 1  # type: ignore[attr-defined,no-any-return]


def _held(claimed: Claimed) -> tuple[ColumnElement[bool], ...]:
    return (
        Preview.id == claimed.id,
        Preview.state == JobState.RUNNING,
        Preview.lease_token == claimed.lease_token,
    )


def _write(session: Session, claimed: Claimed, **values: object) -> bool:
    """Changes the row only while the lease is still ours."""
    return _changed(session, _change(*_held(claimed)).values(**values))
