"""Signing in and out."""

from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from db import accounts
from db.accounts import SignedIn, SignInRefused, TooManyAttempts
from db.audit import Participant
from db.context import SiteContext
from lumbar.errors import Permanent
from web.audit_trail import AuditTrail, address_of
from web.auth import TheAuditTrail, TheSite, Viewer, cookie_name, require_same_origin
from web.params import WITHOUT_NUL
from web.rendering import page

router = APIRouter(include_in_schema=False)


def address(request: Request) -> str:
    """The address of the sign-in page, which leads back to the requested page."""
    requested = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/sign-in" if requested == "/" else f"/sign-in?to={quote(requested, safe='')}"


@router.get("/sign-in")
def sign_in_page(request: Request, site: TheSite, to: str = "/") -> Response:
    with site.database.reading() as session:
        has_users = accounts.has_users(session)
    return page(request, "sign_in.html", to=_local(to), has_users=has_users, failure=None, name="")


@router.post("/sign-in")
def sign_in(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    name: Annotated[str, Form(max_length=200, pattern=WITHOUT_NUL)] = "",
    password: Annotated[str, Form(max_length=5000)] = "",
    to: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    require_same_origin(request)
    outcome: SignedIn | Permanent
    with site.database.transaction() as session:  # which commits a failed attempt, too
        try:
            outcome = accounts.sign_in(session, name, password, address_of(request))
        except (SignInRefused, TooManyAttempts) as error:
            outcome = error
    if isinstance(outcome, Permanent):
        _record_refused(site, trail, Participant(name, address_of(request)), outcome)
        return page(
            request,
            "sign_in.html",
            status=429 if isinstance(outcome, TooManyAttempts) else 401,
            to=_local(to),
            has_users=True,
            failure=str(outcome),
            name=name,
        )
    response = RedirectResponse(_local(to), 303)
    secure = request.url.scheme == "https"
    response.set_cookie(
        cookie_name(site),
        outcome.cookie,
        httponly=True,
        samesite="lax",
        secure=secure,
        path=site.settings.web_root or "/",
    )
    return response


def _record_refused(
    site: SiteContext, trail: AuditTrail, tried: Participant, error: Permanent
) -> None:
    """Records an attempt, with the name only if a user has it: it may be a password."""
    with site.database.reading() as session:
        known = accounts.known_name(session, tried.name)
    throttled = isinstance(error, TooManyAttempts)
    trail.record_stranger(
        "sign_in.throttled" if throttled else "sign_in.refused",
        replace(tried, name=known),
        **({} if known else {"why": "no user has the name"}),
    )


@router.get("/me")
def me(request: Request, actor: Viewer) -> Response:
    return page(request, "me.html")


@router.post("/sign-out")
def sign_out(request: Request, site: TheSite, actor: Viewer) -> Response:
    name = cookie_name(site)
    with site.database.transaction() as session:
        accounts.sign_out(session, request.cookies.get(name, ""), actor.participant)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(name, path=site.settings.web_root or "/")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _local(to: str) -> str:
    """``to`` if it is a path on this host, else "/": never a redirect to another host."""
    return to if to.startswith("/") and to[1:2] not in ("/", "\\") and to.isprintable() else "/"
