"""The tasks, the same with a broker and without: nothing comes in; the job table says what is to be done."""

from collections.abc import Callable

from db.context import SiteContext
from db.models import JobKind
from lumbar.networks import Networks
from worker.analysis import analyse_study
from worker.delivery import deliver
from worker.inline import Task
from worker.preview import read_next
from worker.runner import perform


def tasks(site: SiteContext, networks: Callable[[], Networks]) -> dict[JobKind, Task]:
    """What to do for each kind of job. ``networks`` is called at the first analysis and should keep its result."""

    def analyse() -> bool:
        return perform(
            site, JobKind.ANALYSE, lambda claimed: analyse_study(site, networks(), claimed)
        )

    def send() -> bool:
        return perform(site, JobKind.DELIVER, lambda claimed: deliver(site, claimed))

    def preview() -> bool:
        return read_next(site, networks)

    return {JobKind.ANALYSE: analyse, JobKind.DELIVER: send, JobKind.PREVIEW: preview}
