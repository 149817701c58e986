"""The tasks of those that need the networks, with or without a broker.

They take no arguments: the database says what is due.
"""

from collections.abc import Callable

from db import job_lifecycle, previews
from db.context import SiteContext
from db.models import JobKind
from lumbar.networks import Networks
from worker.analysis import analyse_study
from worker.inline import Task
from worker.preview import read_upload
from worker.runner import perform


def tasks(site: SiteContext, networks: Callable[[], Networks]) -> dict[JobKind, Task]:
    """The task for each kind of job.

    ``networks`` is called for every analysis and upload, and should cache its result.
    """

    def analyse() -> bool:
        return perform(
            site,
            lambda session: job_lifecycle.claim_analysis(session, lease_s=site.settings.lease_s),
            lambda claimed: analyse_study(site, networks(), claimed),
        )

    def preview() -> bool:
        return perform(
            site,
            lambda session: job_lifecycle.claim_preview(session, lease_s=site.settings.lease_s),
            lambda claimed: read_upload(site, networks, claimed),
            on_dead_letter=lambda claimed: previews.remove_files(site, claimed.name),
        )

    return {JobKind.ANALYSE: analyse, JobKind.PREVIEW: preview}
