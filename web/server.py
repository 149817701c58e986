"""Serving the page: where it may listen, and how it ends."""

import asyncio
import socket
import threading
from contextlib import suppress
from ipaddress import ip_address

import structlog
import uvicorn

from db import accounts
from db.context import SiteContext
from lumbar.errors import WrongSetting
from web.app import create_app

log = structlog.get_logger()

LONGEST_HEADER = 16 * 2**10  # bytes
STOP_WITHIN_S = 5
WAITING = 512  # connections that nobody has taken yet


def serve(site: SiteContext, stop: threading.Event) -> None:
    """Answers until told to stop.

    Raises:
        WrongSetting: it may not listen there, or cannot.
    """
    settings = site.settings
    _require_safety(site)
    config = uvicorn.Config(
        create_app(site),
        host=settings.web_host,
        port=settings.web_port,
        ssl_certfile=str(settings.web_certificate) if settings.web_certificate else None,
        ssl_keyfile=str(settings.web_key) if settings.web_key else None,
        proxy_headers=bool(settings.web_proxy),
        forwarded_allow_ips=settings.web_proxy or None,
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=LONGEST_HEADER,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        limit_concurrency=500,
        lifespan="off",
    )
    try:
        asyncio.run(_serve(config, stop))
    except OSError as error:
        where = f"{settings.web_host}:{settings.web_port}"
        raise WrongSetting(
            f"the page cannot listen on {where} ({error.strerror}); set LUMBAR_WEB_PORT"
        ) from error


async def _serve(config: uvicorn.Config, stop: threading.Event) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.create_server(
        (config.host, config.port), family=family, backlog=WAITING
    ) as listener:
        host, port = listener.getsockname()[:2]
        log.info("web.listening", host=host, port=port, tls=config.is_ssl)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        told = asyncio.create_task(asyncio.to_thread(stop.wait))
        await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stop.set()  # it ended by itself, of a signal: the thread that waits may end too
        await serving


def _require_safety(site: SiteContext) -> None:
    """Only this machine may ask in the clear, and nobody else before a password protects what is shown."""
    settings = site.settings
    if _is_loopback(settings.web_host):
        return
    if not settings.web_certificate and not settings.web_proxy:
        raise WrongSetting(
            "LUMBAR_WEB_HOST: passwords would cross the network in the clear; set LUMBAR_WEB_CERTIFICATE and "
            "LUMBAR_WEB_KEY, or LUMBAR_WEB_PROXY to the address of a proxy that speaks HTTPS"
        )
    with site.database.reading() as session:
        if not accounts.anybody(session):
            raise WrongSetting(
                "LUMBAR_WEB_HOST: no user is set yet; run `lumbar users add NAME --role admin` first"
            )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
