"""The page, the API and the monitoring endpoints in one ASGI application."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from db.actors import NoLongerAllowed
from db.attempts import TooManyAttempts
from db.context import SiteContext
from db.database import DatabaseDiskFull, DatabaseUnavailable
from db.previews import NotOwner, TooManyWaiting
from lumbar import VERSION
from lumbar.errors import LumbarError, NotAnalysable, NotDicom, NotFound, Permanent, Transient
from lumbar.log import get_logger
from lumbar.spine.provenance import RESEARCH_USE_ONLY
from lumbar.throttle import Throttle
from web import actions, admin, api, images, login, monitoring, operations, pages, upload
from web.audit_trail import AuditTrail
from web.auth import (
    MAX_SESSIONS,
    SESSION_USE_PERIOD_S,
    Forged,
    NotAllowed,
    NotSignedIn,
    trail_of,
)
from web.hosts import KnownHostsOnly, ProxyOnly, names_of
from web.listener import RequestLimits
from web.multipart import NotAForm, TooLarge
from web.password_queue import PasswordQueue, TooBusy
from web.places import Places
from web.prefix import UnderPrefix, require_free
from web.rendering import page

log = get_logger()

STATIC = Path(__file__).parent / "static"
API = "/api/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
MAX_JSON, MAX_FORM = 2**20, 32 * 2**10  # bytes of a body; uploads have a limit of their own
# The first kind that matches counts, so subclasses come before `Permanent`.
_STATUS: dict[type[LumbarError], int] = {
    NotFound: 404,
    NoLongerAllowed: 403,
    TooManyAttempts: 429,
    TooBusy: 429,
    TooManyWaiting: 429,
    TooLarge: 413,
    NotAForm: 422,
    NotDicom: 422,
    NotAnalysable: 422,
    Permanent: 409,
}


def create_app(site: SiteContext) -> FastAPI:
    """The ASGI application that serves an open site.

    Raises:
        WrongSetting: LUMBAR_WEB_ROOT begins like an address of the page.
    """
    prefix, origin = site.settings.web_root, site.settings.web_origin or ""
    app = FastAPI(
        title="lumbar-triage",
        version=VERSION,
        description=f"Findings of lumbar-spine MR studies. {RESEARCH_USE_ONLY}.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        servers=[{"url": prefix}] if prefix else None,
    )
    app.state.site = site
    app.state.trail = AuditTrail(site)
    app.state.passwords = PasswordQueue()
    app.state.frames = Places(at_once=4, waiting=60, of_all=512)
    app.state.exports = Places(at_once=2, waiting=2, of_all=32)
    app.state.monitoring = monitoring.SharedAnswers()
    app.state.session_use = Throttle(SESSION_USE_PERIOD_S, MAX_SESSIONS)
    app.middleware("http")(_limit_and_protect)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for module in (login, pages, operations, actions, images, upload, monitoring, api):
        app.include_router(module.router)
    admin.mount(app, site)
    require_free(prefix, app)
    for exception, handler in (
        (NotSignedIn, _not_signed_in),
        (NotAllowed, _not_allowed),
        (LumbarError, _lumbar_error),
        (RequestValidationError, _invalid_request),
        (HTTPException, _http_error),
        (Exception, _internal_error),
    ):
        app.add_exception_handler(exception, handler)  # type: ignore[arg-type]
    proxies = site.settings.web_proxy
    https = origin.startswith("https:") or bool(proxies)
    # The last one comes first: what the proxy has forwarded is read once it is known to be it.
    app.add_middleware(UnderPrefix, prefix=prefix, https=https)
    app.add_middleware(KnownHostsOnly, names=names_of(site.settings))
    app.add_middleware(RequestLimits, prefix=prefix)
    if proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=[str(each) for each in proxies])
        app.add_middleware(ProxyOnly, proxies=proxies)
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a URL may contain a patient's name
    return app


async def _limit_and_protect(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Refuses requests over the limits, and adds the security headers to every response."""
    return _with_security_headers(request, _refusal(request) or await call_next(request))


def _refusal(request: Request) -> Response | None:
    """The error response to a request whose body is not read; None where it may proceed."""
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        return _error(request, 400, "the address contains a NUL character")
    if request.url.path == upload.ADDRESS:  # which counts the bytes as they arrive
        return None
    length = request.headers.get("content-length", "0")
    is_json = request.headers.get("content-type", "").startswith("application/json")
    # A form is parsed by the thread that answers everybody: of many fields, for a long time.
    if not length.isdecimal() or int(length) > (MAX_JSON if is_json else MAX_FORM):
        return _error(request, 413, "the request is too large")
    if not _is_utf8(request.headers.get("content-type", "")):
        return _error(request, 415, "the request must be in UTF-8")
    if "transfer-encoding" in request.headers:
        return _error(request, 411, "the request needs a Content-Length header")
    return None


def _is_utf8(content_type: str) -> bool:
    """Whether a body is in UTF-8, as far as it says.

    Starlette decodes a form by whatever codec of Python's is named, and some take hours.
    """
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8")
    return charset.lower() in (b"utf-8", b"utf8")


def _with_security_headers(request: Request, response: Response) -> Response:
    headers = response.headers
    policy = admin.POLICY if request.url.path.startswith(admin.ADDRESS) else POLICY
    headers.setdefault("Content-Security-Policy", policy)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"  # no-referrer would make browsers send Origin: null
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Cache-Control", "no-store")
    if request.url.scheme == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


def _problem(status: int, detail: str, **headers: str) -> JSONResponse:
    """An error as problem+json (RFC 9457)."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


def _error(request: Request, status: int, detail: str, **headers: str) -> Response:
    """An error response: problem+json under ``API``, else a page."""
    if request.url.path.startswith(API):
        return _problem(status, detail, **headers)
    title = HTTPStatus(status).phrase
    response = page(request, "error.html", status=status, title=title, detail=detail)
    response.headers.update(headers)
    return response


async def _not_signed_in(request: Request, error: NotSignedIn) -> Response:
    """401 for programs and forms; a browser that opens a page is redirected to the sign-in page."""
    if request.url.path.startswith(API):
        return _problem(
            401,
            "sign in, or send a token as `Authorization: Bearer …`",
            **{"WWW-Authenticate": "Bearer"},
        )
    if request.method != "GET" or request.headers.get("sec-fetch-dest") == "empty":
        return _error(request, 401, "your session has ended; sign in and try again")
    return RedirectResponse(login.address(request), 303)


async def _not_allowed(request: Request, error: NotAllowed) -> Response:
    event = "request.forged" if isinstance(error, Forged) else "request.refused"
    trail_of(request).record_refusal(event, request)
    return _error(request, 403, str(error))


async def _lumbar_error(request: Request, error: LumbarError) -> Response:
    """The project's own errors: one line for the user, with the HTTP status of its kind."""
    if isinstance(error, Transient):
        log.warning("web.unavailable", why=type(error).__name__)
        unreachable = isinstance(error, DatabaseUnavailable) and not isinstance(
            error, DatabaseDiskFull
        )
        detail = f"{error}; try again in a moment" if unreachable else str(error)
        return _error(request, 503, detail, **{"Retry-After": "5"})
    if isinstance(error, NoLongerAllowed):
        trail_of(request).record_refusal("request.refused", request)
    if isinstance(error, NotOwner):  # who is not told that there is such an upload
        trail_of(request).record_refusal("request.refused", request, upload=error.upload_id)
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return _error(request, status, str(error), **headers)


async def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    """422 with the first errors: where and why, but never the values that were sent."""
    return _error(request, 422, "; ".join(map(_validation_message, error.errors()[:5])))


def _validation_message(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"][1:])
    return f"{field}: {error['msg']}"


async def _http_error(request: Request, error: HTTPException) -> Response:
    details = {
        404: "there is no such page",
        405: "this address does not accept the method of the request",
    }
    detail = details.get(error.status_code, error.detail)
    return _error(request, error.status_code, detail, **dict(error.headers or {}))


async def _internal_error(request: Request, error: Exception) -> Response:
    """500 without the error's text, which may contain patient data; it goes to the log."""
    response = _error(request, 500, "an internal error occurred; the log has the details")
    return _with_security_headers(request, response)
