"""The path prefix under which a reverse proxy serves the page: ``LUMBAR_WEB_ROOT``.

The application's own addresses never have it. Requests arrive with it or, from a proxy that strips
it, without. Templates and scripts write it in front of their links.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.datastructures import URL, MutableHeaders, URLPath
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumbar.errors import WrongSetting


class UnderPrefix:
    """Strips the prefix from requests and adds it to redirects, which are paths only.

    ``https``: browsers reach the page by HTTPS, whatever the proxy says.
    """

    def __init__(self, app: ASGIApp, prefix: str, https: bool) -> None:
        self._app, self._prefix, self._https = app, prefix, https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "location" in headers:
                    headers["location"] = self._public(headers["location"].removeprefix(own))
            await send(message)

        # In place: the handler of internal errors, outside, looks at the address, too.
        if self._https:
            scope["scheme"] = "https"
        own = str(URL(scope={**scope, "path": "", "query_string": b""}))
        scope["path"] = self._stripped(scope["path"])
        await self._app(scope, receive, send_prefixed)

    def _stripped(self, path: str) -> str:
        return (path.removeprefix(self._prefix) or "/") if self._has_prefix(path) else path

    def _public(self, location: str) -> str:
        is_path = location.startswith("/") and not self._has_prefix(location)
        return f"{self._prefix}{location}" if is_path else location

    def _has_prefix(self, path: str) -> bool:
        return path == self._prefix or path.startswith((f"{self._prefix}/", f"{self._prefix}?"))


class RelativeLinks:
    """Lets an application that builds whole URLs build paths instead, with the prefix.

    A proxy may have replaced the host of the request; the browser knows it.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope}
        scope |= {
            "app_root_path": self._prefix,
            "root_path": self._prefix + scope.get("root_path", ""),
            "path": self._prefix + scope["path"],
            "router": _Paths(scope["router"]),
            "headers": [(name, value) for name, value in scope["headers"] if name != b"host"],
            "server": None,
        }
        await self._app(scope, receive, send)


class _Paths:
    """A router's paths without the protocol by which starlette completes them."""

    def __init__(self, router: Any) -> None:
        self._router = router

    def url_path_for(self, name: str, /, **parameters: Any) -> URLPath:
        return URLPath(str(self._router.url_path_for(name, **parameters)))


def require_free(prefix: str, app: FastAPI) -> None:
    """Refuses a prefix that begins like an address of the application itself.

    Raises:
        WrongSetting: it could not be told whether a request has the prefix.
    """
    routes = (context.original_route for context in iter_route_contexts(app.routes))
    taken = {route.path.split("/")[1] for route in routes if isinstance(route, Route | Mount)}
    if prefix and prefix.split("/")[1] in taken:
        raise WrongSetting(
            f"LUMBAR_WEB_ROOT is {prefix}, but the page has addresses that begin so; choose another"
        )
