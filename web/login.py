"""Signing in and out."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from db import accounts
from db.accounts import Refused, SignedIn, TooManyAttempts
from lumbar.errors import Permanent
from web.auth import COOKIE, TheSite, Viewer, address_of, require_same_origin
from web.params import WITHOUT_NUL
from web.rendering import page

router = APIRouter(include_in_schema=False)


def address(request: Request) -> str:
    """The sign-in page, which leads back to where somebody wanted to go."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/sign-in" if wanted == "/" else f"/sign-in?to={quote(wanted, safe='')}"


@router.get("/sign-in")
def sign_in_page(request: Request, site: TheSite, to: str = "/") -> Response:
    with site.database.reading() as session:
        anybody = accounts.anybody(session)
    return page(request, "sign_in.html", to=_here(to), anybody=anybody, why=None, name="")


@router.post("/sign-in")
def sign_in(
    request: Request,
    site: TheSite,
    name: Annotated[str, Form(max_length=200, pattern=WITHOUT_NUL)] = "",
    password: Annotated[str, Form(max_length=5000)] = "",
    to: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    require_same_origin(request)
    done: SignedIn | Permanent
    with site.database.transaction() as session:  # a refused attempt is noted too
        try:
            done = accounts.sign_in(session, name, password, address_of(request))
        except (Refused, TooManyAttempts) as error:
            done = error
    if isinstance(done, Permanent):
        status = 429 if isinstance(done, TooManyAttempts) else 401
        return page(
            request,
            "sign_in.html",
            status=status,
            to=_here(to),
            anybody=True,
            why=str(done),
            name=name,
        )
    response = RedirectResponse(_here(to), 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, done.cookie, httponly=True, samesite="lax", secure=secure, path="/")
    return response


@router.get("/me")
def me(request: Request, actor: Viewer) -> Response:
    return page(request, "me.html")


@router.post("/sign-out")
def sign_out(request: Request, site: TheSite, actor: Viewer) -> Response:
    with site.database.transaction() as session:
        accounts.sign_out(session, request.cookies.get(COOKIE, ""), actor.name)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE, path="/")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _here(to: str) -> str:
    """An address of our own, whatever the sign-in page was given: what begins otherwise may lead to another host."""
    return to if to.startswith("/") and to[1:2] not in ("/", "\\") and to.isprintable() else "/"
