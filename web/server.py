"""The web server: where it may listen, and how it stops."""

import asyncio
import ctypes
import socket
import threading
from contextlib import suppress

import uvicorn

from db import accounts
from db.context import SiteContext
from lumbar.errors import WrongSetting
from lumbar.log import get_logger
from web.app import create_app
from web.hosts import Networks
from web.listener import Listener, count_instead_of_logging, is_loopback

log = get_logger()

STOP_WITHIN_S = 5
M_ARENA_MAX, ARENAS = -8, 2  # mallopt(3)
BACKLOG = 512  # connections that are not accepted yet


def serve(site: SiteContext, stop: threading.Event) -> None:
    """Serves the page and the API until ``stop`` is set.

    Raises:
        WrongSetting: the server may not, or cannot, listen on this address.
    """
    settings = site.settings
    _require_safe_address(site)
    _keep_heap_small()
    app = create_app(site)
    config = uvicorn.Config(
        app,
        host=settings.web_host,
        port=settings.web_port,
        ssl_certfile=str(settings.web_certificate) if settings.web_certificate else None,
        ssl_keyfile=str(settings.web_key) if settings.web_key else None,
        proxy_headers=False,  # they are read once the peer is known to be the proxy (web/hosts.py)
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=STOP_WITHIN_S,
        lifespan="off",
    )
    try:
        asyncio.run(_serve(config, settings.web_proxy, stop))
    except OSError as error:
        where = f"{settings.web_host}:{settings.web_port}"
        raise WrongSetting(
            f"the page cannot listen on {where} ({error.strerror}); set LUMBAR_WEB_PORT"
        ) from error
    finally:
        app.state.trail.close()


async def _serve(config: uvicorn.Config, proxies: Networks, stop: threading.Event) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.create_server(
        (config.host, config.port), family=family, backlog=BACKLOG
    ) as listener:
        host, port = listener.getsockname()[:2]
        log.info("web.listening", host=host, port=port, tls=config.is_ssl)
        config.load()
        count_instead_of_logging()
        server = uvicorn.Server(config)
        connections = Listener(config, server.server_state, listener, proxies)
        accepting = asyncio.create_task(connections.run())
        serving = asyncio.create_task(server.serve(sockets=[]))
        stopped = asyncio.create_task(asyncio.to_thread(stop.wait))
        await asyncio.wait((accepting, serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        server.should_exit = True
        stop.set()  # if a signal ended the server, this ends the waiting thread
        await serving
        with suppress(asyncio.CancelledError):
            await accepting


def _keep_heap_small() -> None:
    """Lets the threads share two heaps.

    By default glibc gives up to sixteen of them one each, and returns little of what a flood of
    requests has used. Other C libraries have no such call.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def _require_safe_address(site: SiteContext) -> None:
    """Only a loopback address may be served without TLS or without users.

    Raises:
        WrongSetting: other machines can connect, but there is no TLS or proxy, or no user.
    """
    settings = site.settings
    if is_loopback(settings.web_host):
        return
    if not settings.web_certificate and not settings.web_proxy:
        raise WrongSetting(
            "LUMBAR_WEB_HOST: passwords would cross the network in the clear; set "
            "LUMBAR_WEB_CERTIFICATE and LUMBAR_WEB_KEY, or set LUMBAR_WEB_PROXY to the address of "
            "an HTTPS proxy"
        )
    with site.database.reading() as session:
        if not accounts.has_users(session):
            raise WrongSetting(
                "LUMBAR_WEB_HOST: there are no users yet; "
                "run `lumbar users add NAME --role admin` first"
            )
