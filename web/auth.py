"""Who asks, whether they may, and the trail of what they saw.

A browser is known by a cookie and proves with every change that the form was ours; a program by a bearer token. What
shows or changes patients' data is written to the audit trail before it is answered.
"""

import secrets
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from db import accounts, audit
from db.accounts import Actor
from db.context import SiteContext
from db.models import Permission
from lumbar.throttle import Throttle

COOKIE = "lumbar_session"
CSRF_FIELD, CSRF_HEADER = "csrf_token", "X-CSRF-Token"
RENEWAL = "X-Renew"  # of a page that renews itself: nobody need be there
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
VIEW_PERIOD_S = 600.0  # one row of the trail per person and thing viewed
MAX_VIEWS = 10_000
SESSION_USE_PERIOD_S = 60.0  # so that not every request writes to the database
MAX_SESSIONS = 10_000


class NotSignedIn(Exception):
    """Nobody is signed in: a browser is led to the sign-in page, a program gets 401."""


class NotAllowed(Exception):
    """Somebody is signed in who may not do this."""


class AuditTrail:
    """The audit trail of who viewed what; one per process."""

    def __init__(self, site: SiteContext) -> None:
        self._site = site
        self._throttle = Throttle(VIEW_PERIOD_S, MAX_VIEWS)

    def record_view(self, event: str, actor: str, study_id: int | None = None) -> None:
        """Records a view, once in ten minutes per person and thing.

        The view counts as recorded only once its row is committed.

        Raises:
            Transient: the row cannot be written; then nothing may be shown.
        """
        view = (event, actor, study_id)
        if not self._throttle.due(view):
            return
        with self._site.database.transaction() as session:
            audit.note(session, event, actor, study_id=study_id)
        self._throttle.record(view)


def site_of(request: Request) -> SiteContext:
    found: SiteContext = request.app.state.site
    return found


def trail_of(request: Request) -> AuditTrail:
    found: AuditTrail = request.app.state.trail
    return found


TheSite = Annotated[SiteContext, Depends(site_of)]
TheAuditTrail = Annotated[AuditTrail, Depends(trail_of)]


def require_same_origin(request: Request) -> None:
    """A change asked for by another site's page is refused, even where no session protects it. Raises NotAllowed."""
    origin = request.headers.get("origin")
    ours = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not ours or request.headers.get("sec-fetch-site", "same-origin") not in (
        "same-origin",
        "none",
    ):
        raise NotAllowed("the request comes from another site's page")


def address_of(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def _given_csrf(request: Request) -> str:
    header = request.headers.get(CSRF_HEADER)
    if header is not None:
        return header
    kind = request.headers.get("content-type", "")
    if not kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        return ""
    return str((await request.form()).get(CSRF_FIELD, ""))


def by_browser(request: Request, site: SiteContext) -> Actor | None:
    """Who is signed in with this browser."""
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        return None
    with site.database.reading() as session:
        actor = accounts.by_cookie(session, cookie)
    session_use: Throttle = request.app.state.session_use
    if actor is not None and RENEWAL not in request.headers and session_use.claim(cookie):
        with site.database.transaction() as session:
            accounts.used(session, cookie)
    return actor


def by_token(request: Request, site: SiteContext) -> Actor | None:
    """Whom a program's bearer token stands for (RFC 6750)."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        return None
    with site.database.reading() as session:
        return accounts.by_token(session, token.strip())


def signed_in(request: Request, site: SiteContext) -> Actor:
    """Who asks. Raises NotSignedIn."""
    found = (
        by_token(request, site) if "authorization" in request.headers else by_browser(request, site)
    )
    if found is None:
        raise NotSignedIn
    return found


def require_our_form(actor: Actor, given: str) -> None:
    """A browser's change must bring the token that stood in our form. Raises NotAllowed."""
    if actor.csrf_token is not None and not secrets.compare_digest(
        given.encode(), actor.csrf_token.encode()
    ):
        raise NotAllowed("the form is too old or not ours; open the page again")


def allowed(permission: Permission) -> Callable[..., Actor]:
    """A dependency: the actor, once it is sure that they may. Raises NotSignedIn, NotAllowed."""

    def actor(request: Request, site: TheSite, given: Annotated[str, Depends(_csrf)]) -> Actor:
        found = signed_in(request, site)
        if request.method in UNSAFE and found.csrf_token is not None:
            require_same_origin(request)
            require_our_form(found, given)
        if not found.may(permission):
            raise NotAllowed(
                f"{found.name} may not {permission}; ask an administrator for another role"
            )
        request.state.actor = found
        return found

    return actor


async def _csrf(request: Request) -> str:
    return await _given_csrf(request) if request.method in UNSAFE else ""


Viewer = Annotated[Actor, Depends(allowed(Permission.READ))]
Reviewer = Annotated[Actor, Depends(allowed(Permission.REVIEW))]
Operator = Annotated[Actor, Depends(allowed(Permission.OPERATE))]
Admin = Annotated[Actor, Depends(allowed(Permission.ADMINISTER))]
