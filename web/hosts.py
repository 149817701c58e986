"""From which peer, and under which name, the page is reached: others are not answered.

A name that is not the page's own is somebody else's who lets it lead here (DNS rebinding), or was
made up so that a link of ours would lead elsewhere.
"""

import re
import socket
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lumbar.settings import Settings

Networks = Collection[IPv4Network | IPv6Network]

PROBES = ("/healthz", "/readyz")  # asked by orchestrators, under any name; they say yes or no
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?")


class ProxyOnly:
    """Answers only the proxy; besides, anybody may ask whether the page works."""

    def __init__(self, app: ASGIApp, proxies: Networks) -> None:
        self._app, self._proxies = app, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = (scope.get("client") or ("",))[0]
        probes = scope["type"] != "http" or scope["path"] in PROBES
        if not probes and not is_in(peer, self._proxies):
            refusal = PlainTextResponse("The page is served by its HTTPS proxy only.\n", 403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


class KnownHostsOnly:
    """Answers only requests whose Host is a name or an address of the page."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PROBES and not self._is_known(scope):
            refusal = PlainTextResponse(
                "The page is not known by this name. If it should be, name it in "
                "LUMBAR_WEB_HOSTS or LUMBAR_WEB_ORIGIN.\n",
                421,
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        """Whether it is a name of ours, or an address: loopback, or the one connected to."""
        hosts = Headers(scope=scope).getlist("host")
        match = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        if name in self._names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or name == (scope.get("server") or ("",))[0]


def is_in(address: str, networks: Networks) -> bool:
    """Whether an IP address, which may be one of IPv4 in IPv6, is in one of the networks."""
    try:
        peer = ip_address(address)
    except ValueError:
        return False
    if isinstance(peer, IPv6Address):
        peer = peer.ipv4_mapped or peer
    return any(peer in network for network in networks)


def names_of(settings: Settings) -> frozenset[str]:
    """The names of the page: those in the settings, and this machine's."""
    origin = urlsplit(settings.web_origin or "").hostname or ""
    machine = socket.gethostname().lower()
    own = {"localhost", machine, machine.partition(".")[0], settings.web_host.lower(), origin}
    return frozenset({*settings.web_hosts, *own} - {"", "0.0.0.0", "::"})  # noqa: S104 - left out
