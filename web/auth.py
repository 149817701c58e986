"""Authentication and authorisation of requests.

A browser is authenticated by a cookie, and every change it makes by the CSRF token of our form; a
program by a bearer token. Whatever shows or changes patients' data is written to the audit trail
before the response is sent (``web.audit_trail``), and so is, soon, what is refused.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request

from db import api_tokens, sessions
from db.actors import Actor
from db.audit import Participant
from db.context import SiteContext
from db.models import Permission
from lumbar.throttle import Throttle
from web.audit_trail import AuditTrail, address_of

CSRF_FIELD, CSRF_HEADER = "csrf_token", "X-CSRF-Token"
REFRESH = "X-Renew"  # header of a page's refresh of itself, which is no sign of a user's presence
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
SESSION_USE_PERIOD_S = 60.0  # so that not every request writes to the database
MAX_SESSIONS = 10_000


class NotSignedIn(Exception):
    """Nobody is signed in: a browser is redirected to the sign-in page, a program gets 401."""


class NotAllowed(Exception):
    """The user who is signed in may not do this."""


class Forged(NotAllowed):
    """A change that no page of ours has requested."""


def site_of(request: Request) -> SiteContext:
    site: SiteContext = request.app.state.site
    return site


def trail_of(request: Request) -> AuditTrail:
    trail: AuditTrail = request.app.state.trail
    return trail


TheSite = Annotated[SiteContext, Depends(site_of)]
TheAuditTrail = Annotated[AuditTrail, Depends(trail_of)]


def cookie_name(site: SiteContext) -> str:
    """The name of the session's cookie.

    Browsers keep the cookies of a host together, whatever the port, so each instance has its own.
    """
    return f"lumbar_session_{site.instance_id}"


def known_cookie_name(site: SiteContext) -> str:
    """The name of the cookie by which a browser is known that somebody has signed in from."""
    return f"lumbar_browser_{site.instance_id}"


def require_same_origin(request: Request) -> None:
    """Refuses a change that a page of another site requests, with or without a session.

    Browsers say in Sec-Fetch-Site whose page it is, except where the page is served by plain HTTP.
    There its Origin must have scheme and host of the request, as we or the proxy received it: a
    page cannot make a browser send another X-Forwarded-Host or X-Forwarded-Proto.

    Raises:
        Forged: the request comes from a page of another site, or the proxy replaced the host.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        if fetch_site not in ("same-origin", "none"):
            raise Forged("the request comes from another site's page")
        return
    origin = request.headers.get("origin")
    if origin is None or origin == site_of(request).settings.web_origin:
        return
    scheme = request.url.scheme
    if scheme == "http":
        scheme = _forwarded(request, "proto") or scheme
    hosts = {request.headers.get("host"), _forwarded(request, "host")} - {"", None}
    if origin in {f"{scheme}://{host}" for host in hosts}:
        return
    raise Forged(
        "the request comes from another site's page, or the proxy does not pass on the Host and "
        "X-Forwarded-Proto headers (then set LUMBAR_WEB_ORIGIN)"
    )


def _forwarded(request: Request, what: str) -> str:
    return request.headers.get(f"x-forwarded-{what}", "").split(",")[0].strip().lower()


def by_browser(request: Request, site: SiteContext) -> Actor | None:
    """The user who is signed in with this browser.

    Each request prolongs the session, except those of a page that refreshes itself.
    """
    cookie = request.cookies.get(cookie_name(site))
    if not cookie:
        return None
    with site.database.reading() as session:
        actor = sessions.by_cookie(session, cookie, address_of(request))
    session_use: Throttle = request.app.state.session_use
    if actor is not None and REFRESH not in request.headers and session_use.claim(cookie):
        with site.database.transaction() as session:
            sessions.record_use(session, cookie)
    return actor


def by_token(request: Request, site: SiteContext) -> Actor | None:
    """The user on whose behalf a program's bearer token acts (RFC 6750)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    with site.database.reading() as session:
        actor = api_tokens.by_token(session, token.strip(), address_of(request))
        refused = api_tokens.refused_token(session, token.strip()) if actor is None else None
    if refused is not None:
        who = Participant(refused.name, address_of(request))
        trail_of(request).record_stranger("token.refused", who, **refused.detail)
    return actor


def signed_in(request: Request, site: SiteContext) -> Actor:
    """The user who makes the request; a token takes precedence over a cookie.

    Raises:
        NotSignedIn: there is none.
    """
    authenticate = by_token if "authorization" in request.headers else by_browser
    actor = authenticate(request, site)
    if actor is None:
        raise NotSignedIn
    request.state.participant = actor.participant  # as whom a refusal is recorded
    return actor


def require_csrf_token(actor: Actor, token: str) -> None:
    """Refuses a browser's change without the CSRF token of its session; a program needs none.

    Raises:
        Forged: the token is not the session's.
    """
    if actor.csrf_token is not None and not secrets.compare_digest(
        token.encode(errors="replace"), actor.csrf_token.encode()
    ):
        raise Forged("the form has expired or is not ours; open the page again")


async def _csrf_token(request: Request) -> str:
    """The CSRF token in the header or form of a change; empty if there is none."""
    if request.method not in UNSAFE:
        return ""
    header = request.headers.get(CSRF_HEADER)
    if header is not None:
        return header
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        return ""
    return str((await request.form()).get(CSRF_FIELD, ""))


def allowed(permission: Permission, *, in_person: bool = False) -> Callable[..., Actor]:
    """A FastAPI dependency that returns the actor if they have the permission.

    ``in_person``: a program's token does not suffice, because it could make itself another user.

    The dependency raises NotSignedIn and NotAllowed.
    """

    def actor_with_permission(
        request: Request, site: TheSite, csrf_token: Annotated[str, Depends(_csrf_token)]
    ) -> Actor:
        actor = signed_in(request, site)
        if request.method in UNSAFE and actor.csrf_token is not None:
            require_same_origin(request)
            require_csrf_token(actor, csrf_token)
        if not actor.may(permission):
            raise NotAllowed(
                f"{actor.name} may not {permission}; ask an administrator for another role"
            )
        if in_person and actor.session_id is None:
            raise NotAllowed("a token cannot change who may sign in; sign in with a browser")
        actor = replace(actor, needs=permission)
        request.state.actor = actor
        return actor

    return actor_with_permission


Viewer = Annotated[Actor, Depends(allowed(Permission.READ))]
Reviewer = Annotated[Actor, Depends(allowed(Permission.REVIEW))]
Operator = Annotated[Actor, Depends(allowed(Permission.OPERATE))]
Admin = Annotated[Actor, Depends(allowed(Permission.ADMINISTER))]
Person = Annotated[Actor, Depends(allowed(Permission.READ, in_person=True))]
UserAdmin = Annotated[Actor, Depends(allowed(Permission.ADMINISTER, in_person=True))]
