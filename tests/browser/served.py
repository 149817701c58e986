"""A site whose pages are served, and the sizes of browser windows."""

from dataclasses import dataclass
from urllib.request import urlopen

from db.context import SiteContext

PASSWORD = "correct horse battery"
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
