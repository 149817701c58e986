"""Signing in and out, and what users can see and change of their own access."""

import re
from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from db import accounts, sessions
from db import sign_in as signing_in
from db.attempts import TooManyAttempts
from db.audit import Participant
from db.context import SiteContext
from db.sign_in import Browser, SignedIn, SignInRefused, WrongPassword
from lumbar.errors import Permanent
from web.audit_trail import AuditTrail, address_of
from web.auth import (
    Person,
    TheAuditTrail,
    TheSite,
    Viewer,
    cookie_name,
    known_cookie_name,
    require_same_origin,
)
from web.params import WITHOUT_NUL, Done, Number, Words
from web.password_queue import TooBusy, queue_of
from web.rendering import CONFIRMATIONS, page

router = APIRouter(include_in_schema=False)

KNOWN_FOR_S = 180 * 24 * 3600  # how long a browser keeps the cookie by which it is known
# What browsers call themselves, the more particular first
BROWSERS = {"Edg": "Edge", "OPR": "Opera", "Firefox": "Firefox", "Chrome": "Chrome"}
BROWSERS |= {"Safari": "Safari"}
SYSTEMS = {"Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows"}
SYSTEMS |= {"Mac OS X": "macOS", "CrOS": "ChromeOS", "Linux": "Linux"}


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
async def sign_in(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    name: Annotated[str, Form(max_length=200, pattern=WITHOUT_NUL)] = "",
    password: Annotated[str, Form(max_length=5000)] = "",
    to: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    require_same_origin(request)
    browser = _browser_of(request, site)
    try:
        known = bool(browser.known_cookie) and await run_in_threadpool(
            _is_known, site, name, browser
        )
        signed_in = await queue_of(request).run(
            f"user {name}" if known else f"address {browser.address}",
            not known,
            signing_in.sign_in,
            site.database,
            name,
            password,
            browser,
        )
    except TooBusy as error:  # without a look into the database: this may be a flood
        trail.record_stranger("sign_in.throttled", Participant("", browser.address))
        return _refused(request, error, name, to)
    except (SignInRefused, TooManyAttempts) as error:
        tried = Participant(name, browser.address)
        await run_in_threadpool(_record_refused, site, trail, tried, error)
        return _refused(request, error, name, to)
    response = RedirectResponse(_local(to), 303)
    _set_cookies(request, response, site, signed_in)
    return response


def _record_refused(
    site: SiteContext, trail: AuditTrail, tried: Participant, error: Permanent
) -> None:
    """Records an attempt, with the name only if a user has it: it may be a password."""
    with site.database.reading() as session:
        known = accounts.known_name(session, tried.name)
    trail.record_stranger(
        "sign_in.refused" if isinstance(error, SignInRefused) else "sign_in.throttled",
        replace(tried, name=known),
        **({} if known else {"why": "no user has the name"}),
    )


def _is_known(site: SiteContext, name: str, browser: Browser) -> bool:
    with site.database.reading() as session:
        return signing_in.is_known(session, name, browser)


def _browser_of(request: Request, site: SiteContext) -> Browser:
    return Browser(
        address_of(request),
        _named(request.headers.get("user-agent", "")),
        request.cookies.get(cookie_name(site), ""),
        request.cookies.get(known_cookie_name(site), ""),
    )


def _named(user_agent: str) -> str:
    """A browser as its user would call it: "Firefox on Windows"."""
    kinds = [name for mark, name in BROWSERS.items() if re.search(rf"\b{mark}\w*/", user_agent)]
    systems = [name for mark, name in SYSTEMS.items() if mark in user_agent]
    return f"{(kinds or ['a browser'])[0]} on {(systems or ['an unknown system'])[0]}"


def _refused(request: Request, error: Permanent, name: str, to: str) -> Response:
    """The sign-in page again, with the reason."""
    retry_after_s = getattr(error, "retry_after_s", None)
    response = page(
        request,
        "sign_in.html",
        status=401 if retry_after_s is None else 429,
        to=_local(to),
        has_users=True,
        failure=str(error),
        name=name,
    )
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def _set_cookies(
    request: Request, response: Response, site: SiteContext, signed_in: SignedIn
) -> None:
    """The session's cookie ends with the browser; the other one is kept."""
    for name, value, max_age in (
        (cookie_name(site), signed_in.cookie, None),
        (known_cookie_name(site), signed_in.known_cookie, KNOWN_FOR_S),
    ):
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
            path=site.settings.web_root or "/",
        )


@router.get("/me")
def me(request: Request, site: TheSite, actor: Viewer, done: Done = "") -> Response:
    with site.database.reading() as session:
        rows = sessions.of_user(session, actor.user_id)
    return page(request, "me.html", sessions=rows, confirmation=CONFIRMATIONS.get(done))


@router.post("/sessions/{session_id}/end")
def end_session(site: TheSite, actor: Person, session_id: Number) -> Response:
    with site.database.transaction() as session:
        sessions.end(session, actor, session_id)
    return RedirectResponse("/me?done=ended", 303)


@router.post("/sessions/end-others")
def end_other_sessions(site: TheSite, actor: Person) -> Response:
    with site.database.transaction() as session:
        sessions.end_others(session, actor)
    return RedirectResponse("/me?done=ended", 303)


@router.post("/password")
async def own_password(
    request: Request,
    site: TheSite,
    trail: TheAuditTrail,
    actor: Person,
    current: Words,
    password: Words,
    keep_tokens: Annotated[bool, Form()] = False,
) -> Response:
    """Changes the user's own password, given the current one, and ends all of their sessions.

    Raises:
        NotAllowed: the request comes with a token, not from a browser.
        WrongPassword: the current password is wrong.
        TooManyAttempts: too many wrong ones were given in this session.
    """
    try:
        await queue_of(request).run(
            f"user {actor.user_id}",
            False,
            signing_in.change_password,
            site.database,
            actor,
            current,
            password,
            keep_tokens=keep_tokens,
        )
    except (WrongPassword, TooManyAttempts) as error:
        wrong = isinstance(error, WrongPassword)
        event = "password.refused" if wrong else "password.throttled"
        trail.record_refusal(event, request)
        raise
    return RedirectResponse("/sign-in", 303)


@router.post("/sign-out")
def sign_out(request: Request, site: TheSite, actor: Viewer) -> Response:
    with site.database.transaction() as session:
        sessions.sign_out(session, actor)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(cookie_name(site), path=site.settings.web_root or "/")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _local(to: str) -> str:
    """``to`` if it is a path on this host, else "/": never a redirect to another host."""
    return to if to.startswith("/") and to[1:2] not in ("/", "\\") and to.isprintable() else "/"
