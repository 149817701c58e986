"""Tables of users and their credentials, and the audit trail."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    SmallInteger,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Table
from db.models.states import UserRole
from db.types import db_now


class User(Table):
    """A person who may sign in."""

    __tablename__ = "user_account"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str]  # Argon2id, with its parameters
    role: Mapped[UserRole]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    disabled_at: Mapped[datetime | None]


class WebSession(Table):
    """A browser in which a user is signed in."""

    __tablename__ = "web_session"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)  # of the cookie
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), index=True)
    csrf_token: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(64), default="")  # at sign-in
    browser: Mapped[str] = mapped_column(String(64), default="")  # "Firefox on Windows"
    last_used_at: Mapped[datetime] = mapped_column(default=db_now())
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class ApiToken(Table):
    """A program's credentials: they act for a user, within ``scopes`` of what that user may do."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), index=True)
    scopes: Mapped[str] = mapped_column(String(64))  # permissions, comma-separated
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class KnownBrowser(Table):
    """A browser in which a user has signed in before; it has attempts of its own."""

    __tablename__ = "known_browser"
    __table_args__ = (UniqueConstraint("token_sha256", "user_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64))  # of the cookie
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class PasswordAttempts(Table):
    """How many attempts at a password one key has used up (``db.attempts``)."""

    __tablename__ = "password_attempts"

    # sha256 of the name, address, …, because people mistype passwords as names
    who: Mapped[str] = mapped_column(String(64), primary_key=True)
    spent_until_s: Mapped[float] = mapped_column(index=True)  # seconds since 1970


class AuditEvent(Table):
    """Who did what to which study (PS3.15 A.5); append-only, ids only."""

    __tablename__ = "audit_event"
    __table_args__ = (
        Index(
            "ix_audit_event_refused",
            "id",
            sqlite_where=text("outcome > 0"),
            postgresql_where=text("outcome > 0"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    happened_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)
    event: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(64))
    # of the network, or a host's name; empty: not known
    address: Mapped[str] = mapped_column(String(64), server_default="")
    study_id: Mapped[int | None] = mapped_column(index=True)
    outcome: Mapped[int] = mapped_column(SmallInteger, server_default="0")  # an ``Outcome``
    times: Mapped[int] = mapped_column(
        server_default="1"
    )  # it happened, in a period that has ended
    detail: Mapped[dict[str, Any]]


class AuditForward(Table):
    """How far the audit trail has been forwarded to the syslog server; one row."""

    __tablename__ = "audit_forward"

    id: Mapped[int] = mapped_column(primary_key=True)
    last_id: Mapped[int]  # of audit_event
