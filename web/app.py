"""The page, the API and what watches them, in one ASGI application."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from db.accounts import TooManyAttempts
from db.context import SiteContext
from db.database import DatabaseUnavailable
from db.previews import TooManyWaiting
from lumbar import VERSION
from lumbar.errors import LumbarError, NotAnalysable, NotDicom, NotFound, Permanent, Transient
from lumbar.spine.provenance import RESEARCH_USE_ONLY
from lumbar.throttle import Throttle
from web import actions, admin, api, images, login, monitoring, operations, pages, upload
from web.auth import (
    MAX_SESSIONS,
    SESSION_USE_PERIOD_S,
    AuditTrail,
    NotAllowed,
    NotSignedIn,
)
from web.multipart import NotAForm, TooLarge
from web.rendering import page

log = structlog.get_logger()

STATIC = Path(__file__).parent / "static"
API = "/api/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
LARGEST_BODY = 2**20  # bytes of a form or of JSON


def create_app(site: SiteContext) -> FastAPI:
    """The application of an open site."""
    app = FastAPI(
        title="lumbar-triage",
        version=VERSION,
        description=f"Findings of lumbar-spine MR studies. {RESEARCH_USE_ONLY}.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.site = site
    app.state.trail = AuditTrail(site)
    app.state.session_use = Throttle(SESSION_USE_PERIOD_S, MAX_SESSIONS)
    app.middleware("http")(_guarded)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for part in (login, pages, operations, actions, images, upload, monitoring, api):
        app.include_router(part.router)
    admin.mount(app, site)
    for kind, answer in (
        (NotSignedIn, _not_signed_in),
        (NotAllowed, _refused),
        (LumbarError, _failed),
        (RequestValidationError, _invalid),
        (HTTPException, _http),
        (Exception, _broken),
    ):
        app.add_exception_handler(kind, answer)  # type: ignore[arg-type]
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)  # an address may hold a patient's name
    return app


async def _guarded(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Bounds what is read and says how a browser must treat what it gets."""
    return _protected(request, _unreadable(request) or await call_next(request))


def _unreadable(request: Request) -> Response | None:
    """The answer to a request that is not even looked into."""
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        return _answer(
            request, 400, "the address holds a character that nothing here has in its name"
        )
    if request.url.path == upload.ADDRESS:  # which counts what really comes
        return None
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return _answer(request, 413, "the request is too large")
    if "transfer-encoding" in request.headers:
        return _answer(request, 411, "say how long the request is")
    return None


def _protected(request: Request, response: Response) -> Response:
    headers = response.headers
    policy = admin.POLICY if request.url.path.startswith(admin.ADDRESS) else POLICY
    headers.setdefault("Content-Security-Policy", policy)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"  # with none, browsers hide their origin from us too
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Cache-Control", "no-store")
    if request.url.scheme == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


def problem(status: int, detail: str, **more: str) -> JSONResponse:
    """An error for a program (RFC 9457)."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(body, status, headers=more, media_type="application/problem+json")


def _answer(request: Request, status: int, why: str, **headers: str) -> Response:
    if request.url.path.startswith(API):
        return problem(status, why, **headers)
    response = page(request, "error.html", status=status, title=HTTPStatus(status).phrase, why=why)
    response.headers.update(headers)
    return response


async def _not_signed_in(request: Request, error: NotSignedIn) -> Response:
    if request.url.path.startswith(API):
        return problem(
            401,
            "sign in, or send a token as `Authorization: Bearer …`",
            **{"WWW-Authenticate": "Bearer"},
        )
    if request.method != "GET" or request.headers.get("sec-fetch-dest") == "empty":
        return _answer(request, 401, "you are not signed in any more; sign in and try again")
    return RedirectResponse(login.address(request), 303)


async def _refused(request: Request, error: NotAllowed) -> Response:
    return _answer(request, 403, str(error))


async def _failed(request: Request, error: LumbarError) -> Response:
    """Our own errors, each of which is one line for a person."""
    if isinstance(error, Transient):
        away = isinstance(error, DatabaseUnavailable)
        log.warning("web.away", why=type(error).__name__)
        return _answer(
            request,
            503,
            f"{error}; try again in a moment" if away else str(error),
            **{"Retry-After": "5"},
        )
    status = {
        NotFound: 404,
        TooManyAttempts: 429,
        TooManyWaiting: 429,
        TooLarge: 413,
        NotAForm: 422,
        NotDicom: 422,
        NotAnalysable: 422,
        Permanent: 409,
    }
    return _answer(
        request, next(code for kind, code in status.items() if isinstance(error, kind)), str(error)
    )


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """What was sent is not what is expected; the values themselves are not repeated."""
    wrong = "; ".join(
        f"{'.'.join(str(p) for p in e['loc'][1:])}: {e['msg']}" for e in error.errors()[:5]
    )
    return _answer(request, 422, wrong)


async def _http(request: Request, error: HTTPException) -> Response:
    why = {404: "there is no such page", 405: "this cannot be done here"}.get(
        error.status_code, error.detail
    )
    return _answer(request, error.status_code, why, **dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    """A fault of ours, which goes on to the log: its text may quote what it was about."""
    return _protected(request, _answer(request, 500, "this failed inside; the log says where"))
