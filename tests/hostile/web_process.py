"""A page of few descriptors: ``python -m tests.hostile.web_process PORT DESCRIPTORS MAXIMUM``.

``MAXIMUM``: of connections, 0 for as many as the descriptors permit.
"""

import asyncio
import resource
import sys
import threading

import uvicorn

from tests.hostile.web_clients import Answers
from web import listener, server
from web.listener import RequestLimits


def main() -> None:
    port, descriptors, maximum = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    if maximum:
        listener._descriptors = lambda: 2 * maximum
    config = uvicorn.Config(
        RequestLimits(Answers(), ""), port=port, ws="none", lifespan="off", log_config=None
    )
    asyncio.run(server._serve(config, [], threading.Event()))


if __name__ == "__main__":
    main()
