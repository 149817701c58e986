"""The two tasks, the same with a broker and without: a job's id in, everything else from its row."""

from collections.abc import Callable

from db.site import Site
from db.tables import JobKind
from lumbar.networks import CropReader
from worker.analysis import analyse_study
from worker.delivery import deliver
from worker.job import perform
from worker.local import Task


def tasks(site: Site, networks: Callable[[], CropReader]) -> dict[JobKind, Task]:
    """What to do with a job of each kind. ``networks`` is called at the first analysis and should keep its result."""

    def analyse(job_id: int) -> None:
        perform(site, job_id, lambda claimed: analyse_study(site, networks(), claimed))

    def send(job_id: int) -> None:
        perform(site, job_id, lambda claimed: deliver(site, claimed))

    return {JobKind.ANALYSE: analyse, JobKind.DELIVER: send}
