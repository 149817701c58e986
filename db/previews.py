"""Uploads that are analysed once: a leased row and a folder of files each, deleted afterwards."""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from db import audit, leases, operating_time
from db.actors import Actor
from db.audit import Participant
from db.context import SiteContext
from db.leases import Lease
from db.models import JobKind, JobState, Permission, Preview, User
from db.types import db_now
from lumbar.errors import NotFound, Permanent
from lumbar.log import get_logger
from lumbar.store.files import StoreFull

log = get_logger()

MAX_WAITING = 3  # per user
RETENTION_S = 3600  # after the last change, in operating time
ENDED = (JobState.DONE, JobState.DEAD)
UPLOAD, SCRATCH, PICTURE = "upload", "scratch", "picture.png"  # within a preview's folder


NO_SUCH_UPLOAD = "there is no such upload; it may have been deleted"


class NotOwner(NotFound):
    """The upload is another user's; the message is as if there were none."""

    def __init__(self, upload_id: int) -> None:
        super().__init__(NO_SUCH_UPLOAD)
        self.upload_id = upload_id


class TooManyWaiting(Permanent):
    """The user already has the maximum number of uploads that have not ended."""


@dataclass(frozen=True)
class ClaimedPreview:
    """A preview that a worker has claimed; every write for it requires ``lease``."""

    lease: Lease
    name: str
    user: str
    keep: bool
    kind: JobKind = JobKind.PREVIEW

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields that identify it in log events."""
        return {"preview": self.lease.row_id, "kind": str(self.kind)}


def folder(site: SiteContext, name: str) -> Path:
    """The folder of a preview's files: ``UPLOAD``, ``SCRATCH`` and, in the end, ``PICTURE``."""
    return site.settings.home / "previews" / name


def create(site: SiteContext, user_id: int, *, keep: bool) -> str:
    """Creates a preview to upload to and returns its name.

    Raises:
        TooManyWaiting: the user has ``MAX_WAITING`` uploads that have not ended.
        StoreFull: its folder cannot be made.
        DatabaseUnavailable: no row was written.
    """
    name = secrets.token_hex(16)
    with site.database.transaction() as session:
        # locked, so that two requests at once are counted one after the other
        session.execute(select(User.id).where(User.id == user_id).with_for_update())
        unfinished = (Preview.user_id == user_id, Preview.state.not_in(ENDED))
        if (session.scalar(select(func.count()).where(*unfinished)) or 0) >= MAX_WAITING:
            raise TooManyWaiting(
                f"{MAX_WAITING} of your uploads have not been read yet; wait, or delete one"
            )
        session.add(Preview(name=name, user_id=user_id, keep=keep))
    path = folder(site, name)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for new in (path, path / UPLOAD, path / SCRATCH):
            new.mkdir(mode=0o700)
    except OSError as error:
        discard(site, name)
        raise StoreFull(f"an upload cannot be written: {error.strerror}") from error
    return name


def mark_uploaded(session: Session, name: str, *, files: int, size: int) -> None:
    """Records that the upload is complete; from now on it is due.

    Raises:
        NotFound: it was deleted meanwhile.
    """
    incomplete = (Preview.name == name, Preview.uploaded_at.is_(None))
    values = {"uploaded_at": db_now(), "files": files, "size": size, "expires_s": None}
    if not leases.execute(session, leases.change(Preview, *incomplete).values(**values)):
        raise NotFound("the upload was deleted before it was complete; upload it again")


def find(session: Session, name: str, actor: Actor) -> Preview:
    """One of the actor's own previews; for an administrator, any user's.

    Raises:
        NotFound: there is none.
        NotOwner: it is another user's; the message is the same.
    """
    preview = session.scalar(select(Preview).where(Preview.name == name))
    if preview is None:
        raise NotFound(NO_SUCH_UPLOAD)
    if preview.user_id != actor.user_id and not actor.may(Permission.ADMINISTER):
        raise NotOwner(preview.id)
    return preview


def list_for_user(session: Session, user_id: int) -> list[Preview]:
    """A user's previews, the newest first."""
    statement = select(Preview).where(Preview.user_id == user_id).order_by(Preview.id.desc())
    return list(session.scalars(statement))


def due(session: Session, limit: int) -> Sequence[int]:
    """The ids of previews that wait for a worker, the oldest first."""
    waiting = (leases.is_due(Preview), Preview.uploaded_at.is_not(None))
    statement = select(Preview.id).where(*waiting).order_by(Preview.id).limit(limit)
    return session.scalars(statement).all()


def claimed_preview(preview: Preview) -> ClaimedPreview:
    """A running preview, as its worker holds it."""
    return ClaimedPreview(leases.lease_of(preview), preview.name, preview.user.name, preview.keep)


def expired(session: Session) -> list[ClaimedPreview]:
    """Previews whose worker is lost."""
    return [claimed_preview(preview) for preview in leases.expired(session, Preview)]


def forget(site: SiteContext, preview: Preview, actor: Participant) -> None:
    """As ``discard``, at somebody's wish.

    Raises:
        Transient: the database is unavailable.
    """
    with site.database.transaction() as session:
        note(session, "upload.forgotten", preview, actor)
        session.execute(delete(Preview).where(Preview.name == preview.name))
    shutil.rmtree(folder(site, preview.name), ignore_errors=True)


def note(session: Session, event: str, preview: Preview, actor: Participant) -> None:
    """Adds an audit event about an upload: which, and whose."""
    audit.note(session, event, actor, upload=preview.id, user=preview.user.name)


def discard(site: SiteContext, name: str) -> None:
    """Deletes row, files and result. A worker that is reading it finds its lease lost.

    Raises:
        Transient: the database is unavailable.
    """
    with site.database.transaction() as session:
        session.execute(delete(Preview).where(Preview.name == name))
    shutil.rmtree(folder(site, name), ignore_errors=True)


def remove_files(site: SiteContext, name: str) -> None:
    """Deletes what was uploaded and unpacked; the picture stays with the result."""
    for part in (UPLOAD, SCRATCH):
        shutil.rmtree(folder(site, name) / part, ignore_errors=True)


def delete_expired(site: SiteContext) -> int:
    """Deletes results and incomplete uploads after ``RETENTION_S``, and files of killed processes.

    Uploads that wait for a worker are kept, however long. Returns how many folders were deleted.

    Raises:
        Transient: the database is unavailable.
    """
    may_go = Preview.state.in_(ENDED) | Preview.uploaded_at.is_(None)
    with site.database.transaction() as session:
        now = operating_time.read(session)
        begins = leases.change(Preview, may_go, Preview.expires_s.is_(None))
        session.execute(begins.values(expires_s=now + RETENTION_S))
        old = select(Preview.name).where(may_go, Preview.expires_s <= now)
        expired_names = list(session.scalars(old))
    for name in expired_names:
        discard(site, name)
    deleted = len(expired_names) + _delete_orphans(site)
    if deleted:
        log.info("previews.deleted", count=deleted)
    return deleted


def _delete_orphans(site: SiteContext) -> int:
    """Deletes folders without a row and the files of ended previews; returns how many folders.

    Folders are listed before rows, because a row is written before its folder is made.
    """
    try:
        folders = {path.name for path in folder(site, "").iterdir() if path.is_dir()}
    except FileNotFoundError:
        return 0
    with site.database.reading() as session:
        states = dict(session.execute(select(Preview.name, Preview.state)).all())
    orphans = folders - states.keys()
    for name in orphans:
        shutil.rmtree(folder(site, name), ignore_errors=True)
    for name in folders & states.keys():
        if states[name] in ENDED:
            remove_files(site, name)
    return len(orphans)
