"""A site whose pages are served, and the windows that look at them."""

from dataclasses import dataclass
from urllib.request import urlopen

from db.context import SiteContext

PASSWORD = "correct horse battery"
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 360, "height": 740}


@dataclass(frozen=True)
class Served:
    """A site and where its page is; ``severe`` is the UID of a study whose images can be looked at."""

    site: SiteContext
    root: str
    severe: str

    def answers(self) -> bool:
        try:
            with urlopen(f"{self.root}/healthz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False
