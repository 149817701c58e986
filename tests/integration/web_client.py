"""Clients of the web application: browsers with a session, and programs with a token."""

import secrets
from collections.abc import Collection
from hashlib import sha256

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from db import api_tokens
from db.context import SiteContext
from db.models import AuditEvent, Permission, User, UserRole, WebSession
from tests.factories.accounts import OPERATOR
from web.auth import CSRF_FIELD, cookie_name

BASE_URL = "http://127.0.0.1"

# For what does not depend on the database.
sqlite_only = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class WebClient(TestClient):
    """Follows no redirects; ``csrf`` is the token that a page's forms contain."""

    csrf = ""

    def __init__(self, app: FastAPI, **headers: str) -> None:
        super().__init__(app, base_url=BASE_URL, follow_redirects=False, headers=headers)

    def submit(self, path: str, **form: object):
        """Sends a form as a page does, with the CSRF token."""
        return self.post(path, data={CSRF_FIELD: self.csrf} | form)


def browser_client(app: FastAPI, role: UserRole, name: str = "") -> WebClient:
    """A signed-in browser, in a new session; the user is named after the role, or by ``name``.

    The slow password check is skipped.
    """
    site: SiteContext = app.state.site
    cookie, csrf = secrets.token_urlsafe(), secrets.token_urlsafe()
    with site.database.transaction() as session:
        user = _user(session, role, name)
        digest = sha256(cookie.encode()).hexdigest()
        session.add(WebSession(token_sha256=digest, user_id=user.id, csrf_token=csrf))
    client = WebClient(app)
    client.csrf = csrf
    client.cookies.set(cookie_name(site), cookie)
    return client


def token_client(app: FastAPI, role: UserRole, scopes: Collection[Permission] = ()) -> WebClient:
    """A program with a user's token; by default with all permissions of the user's role."""
    site: SiteContext = app.state.site
    with site.database.transaction() as session:
        token = api_tokens.new_token(
            session, _user(session, role), "program", scopes or role.permissions, 1, OPERATOR
        )
    return WebClient(app, Authorization=f"Bearer {token}")


def _user(session, role, name=""):
    user = session.scalar(select(User).where(User.name == (name or role.value)))
    if user is None:
        user = User(name=name or role.value, password_hash="none", role=role)
        session.add(user)
        session.flush()
    return user


def audit_rows(site: SiteContext) -> list[tuple[str, str, int | None]]:
    """The audit trail: event, actor and study of each row."""
    with site.database.reading() as session:
        return [
            (row.event, row.actor, row.study_id)
            for row in session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        ]


def row(site: SiteContext, table, number=1):
    """A table's row by its id; None where there is none."""
    with site.database.reading() as session:
        return session.get(table, number)


def count(site: SiteContext, table) -> int:
    with site.database.reading() as session:
        return len(session.scalars(select(table)).all())
