"""Browsers' sessions: cookies are random, so only their SHA-256 is stored."""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db import audit
from db.actors import Actor
from db.models import User, WebSession
from db.types import read_clock
from lumbar.errors import NotFound

IDLE_TIMEOUT = timedelta(hours=1)  # after which a browser has to sign in again
MAX_SESSION = timedelta(hours=12)
USE_RECORDED_EVERY = timedelta(minutes=1)
# of one user; ended ones among them are forgotten by count, not by the clock
SESSIONS_KEPT = 20


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def begin(session: Session, user: User, address: str, browser: str, old_cookie: str) -> str:
    """Opens a session and returns its cookie; the one that this browser had ends.

    Beyond ``SESSIONS_KEPT``, the user's oldest one ends, too.
    """
    session.execute(delete(WebSession).where(WebSession.token_sha256 == digest(old_cookie)))
    cookie = secrets.token_urlsafe(32)
    session.add(
        WebSession(
            token_sha256=digest(cookie),
            user_id=user.id,
            csrf_token=secrets.token_urlsafe(32),
            address=address[:64],
            browser=browser[:64],
        )
    )
    session.flush()
    newest = (
        select(WebSession.id)
        .where(WebSession.user_id == user.id)
        .order_by(WebSession.id.desc())
        .limit(SESSIONS_KEPT)
    )
    session.execute(
        delete(WebSession)
        .where(WebSession.user_id == user.id, WebSession.id.not_in(newest))
        .execution_options(synchronize_session=False)
    )
    return cookie


def by_cookie(session: Session, cookie: str, address: str = "") -> Actor | None:
    """The user who is signed in with this cookie; None if the session is unknown or has ended."""
    web_session = session.scalar(
        select(WebSession).where(WebSession.token_sha256 == digest(cookie))
    )
    if web_session is None or web_session.user.disabled_at is not None:
        return None
    if not _lasts(web_session, read_clock(session)):
        return None
    user = web_session.user
    return Actor(
        user.id,
        user.name,
        user.role,
        user.role.permissions,
        address=address,
        csrf_token=web_session.csrf_token,
        session_id=web_session.id,
    )


def record_use(session: Session, cookie: str) -> None:
    """Records that a session is in use, at most once a minute."""
    now = read_clock(session)
    just_now = WebSession.last_used_at.between(now - USE_RECORDED_EVERY, now)
    session.execute(
        update(WebSession)
        .where(WebSession.token_sha256 == digest(cookie), ~just_now)
        .values(last_used_at=now)
    )


def of_user(session: Session, user_id: int) -> list[WebSession]:
    """The user's sessions that have not ended, the newest first."""
    rows = session.scalars(
        select(WebSession).where(WebSession.user_id == user_id).order_by(WebSession.id.desc())
    )
    now = read_clock(session)
    return [row for row in rows if _lasts(row, now)]


def sign_out(session: Session, actor: Actor) -> None:
    """Ends the session by which the actor is known; a program has none."""
    audit.note(session, "sign_out", actor.participant)
    session.execute(delete(WebSession).where(WebSession.id == actor.session_id))


def end(session: Session, actor: Actor, session_id: int) -> None:
    """Ends one of the actor's own sessions.

    Raises:
        NotFound: there is none, or it is another user's.
        NoLongerAllowed: the actor's own session has ended.
    """
    actor.require(session, alone=True)
    row = session.get(WebSession, session_id)
    if row is None or row.user_id != actor.user_id:
        raise NotFound(f"there is no session {session_id}")
    audit.note(session, "user.session_ended", actor.participant, ended=session_id)
    session.delete(row)


def end_others(session: Session, actor: Actor) -> None:
    """Ends all of the actor's sessions but the one by which they are known.

    Raises:
        NoLongerAllowed: the actor's own session has ended.
    """
    actor.require(session, alone=True)
    audit.note(session, "user.sessions_ended", actor.participant)
    session.execute(
        delete(WebSession).where(
            WebSession.user_id == actor.user_id, WebSession.id != actor.session_id
        )
    )


def end_all(session: Session, user: User) -> None:
    session.execute(delete(WebSession).where(WebSession.user_id == user.id))


def _lasts(row: WebSession, now: datetime) -> bool:
    """Whether a session has not ended by ``now``.

    One from further ahead than a session may last has ended, too: the clock was ahead.
    """
    return abs(now - row.last_used_at) <= IDLE_TIMEOUT and abs(now - row.created_at) <= MAX_SESSION
