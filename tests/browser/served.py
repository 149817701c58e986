"""A site whose pages are served, and the sizes of browser windows."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from db.context import SiteContext
from db.models import UserRole
from tests.factories.accounts import add_user
from tests.integration.site_with_studies import open_site
from tests.peers import free_port
from tests.system import wait_until
from web.server import serve

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 360, "height": 740}


@dataclass(frozen=True)
class Served:
    """A served site; ``severe`` is the Study Instance UID of the study with viewable images."""

    site: SiteContext
    root: str
    severe: str

    def is_alive(self) -> bool:
        try:
            with urlopen(f"{self.root}/healthz", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False


def new_site(home: Path, **settings: object) -> SiteContext:
    """A site with a user of each role, named after it, to be served on a free port."""
    site = open_site(home, web_port=free_port(), **settings)
    for role in UserRole:
        add_user(site.database, role.value, role)
    return site


@contextmanager
def serving(site: SiteContext, severe: str = "") -> Iterator[Served]:
    """Serves a site as `lumbar web` does."""
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(site, stop))
    thread.start()
    served = Served(site, f"http://127.0.0.1:{site.settings.web_port}", severe)
    try:
        wait_until(served.is_alive, 30, lambda: "the page does not respond")
        yield served
    finally:
        stop.set()
        thread.join(30)
        site.database.close()
