"""Those who ask the page: people in browsers, programs with tokens. Each is a client of the application itself."""

import secrets
from collections.abc import Collection
from hashlib import sha256

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from db import accounts
from db.context import SiteContext
from db.models import AuditEvent, Permission, User, UserRole, WebSession
from web.auth import COOKIE, CSRF_FIELD

OURS = "http://127.0.0.1"

one_database = pytest.mark.parametrize(
    "database", ["sqlite"], indirect=True
)  # where both kinds would do the same


class Visitor(TestClient):
    """Follows no redirects; ``csrf`` is what a page's forms would hold."""

    csrf = ""

    def __init__(self, app: FastAPI, **headers: str) -> None:
        super().__init__(app, base_url=OURS, follow_redirects=False, headers=headers)

    def submit(self, path: str, **form: object):
        """Sends a form of ours."""
        return self.post(path, data={CSRF_FIELD: self.csrf} | form)


def in_browser(app: FastAPI, role: UserRole) -> Visitor:
    """A person of a role, who goes by its name, in a session of their own; without the slow check of a password."""
    site: SiteContext = app.state.site
    cookie, csrf = secrets.token_urlsafe(), secrets.token_urlsafe()
    with site.database.transaction() as session:
        user = _user(session, role)
        digest = sha256(cookie.encode()).hexdigest()
        session.add(WebSession(token_sha256=digest, user_id=user.id, csrf_token=csrf))
    visitor = Visitor(app)
    visitor.csrf = csrf
    visitor.cookies.set(COOKIE, cookie)
    return visitor


def by_token(app: FastAPI, role: UserRole, scopes: Collection[Permission] = ()) -> Visitor:
    """A program of a person of a role; without ``scopes`` it may what the person may."""
    site: SiteContext = app.state.site
    with site.database.transaction() as session:
        token = accounts.new_token(
            session, _user(session, role), "program", scopes or role.permissions, 1, "test"
        )
    return Visitor(app, Authorization=f"Bearer {token}")


def _user(session, role):
    user = session.scalar(select(User).where(User.name == role.value))
    if user is None:
        user = User(name=role.value, password_hash="none", role=role)
        session.add(user)
        session.flush()
    return user


def trail(site: SiteContext) -> list[tuple[str, str, int | None]]:
    """The audit trail: event, actor, study."""
    with site.database.reading() as session:
        return [
            (e.event, e.actor, e.study_id)
            for e in session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        ]


def row(site: SiteContext, table, number=1):
    """A row as it stands; None where there is none."""
    with site.database.reading() as session:
        return session.get(table, number)


def count(site: SiteContext, table) -> int:
    with site.database.reading() as session:
        return len(session.scalars(select(table)).all())
