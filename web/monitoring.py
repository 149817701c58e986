"""For those who watch the system: is it alive, is it ready, how is it doing. Nothing here tells of a patient."""

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from db.context import SiteContext
from db.read_models import metrics
from lumbar.errors import LumbarError
from web.auth import TheSite

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
def healthz() -> Response:
    """This process answers."""
    return Response("alive\n", media_type="text/plain")


@router.get("/readyz")
def readyz(site: TheSite) -> Response:
    """The database answers and the store can be written."""
    try:
        with site.database.reading() as session:
            metrics.ping(session)
        if site.store.fill_ratio() > site.settings.disk_refuse_above:
            return Response("the disk is full\n", 503, media_type="text/plain")
    except LumbarError as error:
        return Response(f"{error}\n", 503, media_type="text/plain")
    return Response("ready\n", media_type="text/plain")


@router.get("/metrics")
def prometheus_metrics(site: TheSite) -> Response:
    """For Prometheus; counted in the database, so that every process tells the same."""
    registry = CollectorRegistry()
    registry.register(_Figures(site))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Figures(Collector):
    def __init__(self, site: SiteContext) -> None:
        self._site = site

    def collect(self):  # type: ignore[no-untyped-def]
        with self._site.database.reading() as session:
            told = metrics.figures(session)
        studies = GaugeMetricFamily("lumbar_studies", "Studies by state", labels=["state"])
        for state, count in told.studies.items():
            studies.add_metric([state], count)
        yield studies
        jobs = GaugeMetricFamily(
            "lumbar_jobs", "Jobs that have not ended well", labels=["kind", "state"]
        )
        for (kind, job_state), count in told.jobs.items():
            jobs.add_metric([kind, job_state], count)
        yield jobs
        age = GaugeMetricFamily(
            "lumbar_queue_age_seconds", "Age of the oldest due job", labels=["kind"]
        )
        for kind, seconds in told.queue_age_s.items():
            age.add_metric([kind], seconds)
        yield age
        hour = GaugeMetricFamily("lumbar_last_hour", "In the last hour", labels=["what"])
        for what, count in told.last_hour.items():
            hour.add_metric([what], count)
        yield hour
        stages = GaugeMetricFamily(
            "lumbar_stage_seconds",
            "Of studies ended in the last hour",
            labels=["stage", "quantile"],
        )
        for (stage, quantile), seconds in told.stages_s.items():
            stages.add_metric([stage, quantile], seconds)
        yield stages
        yield GaugeMetricFamily(
            "lumbar_disk_fill_ratio",
            "How full the store's disk is, 0-1",
            self._site.store.fill_ratio(),
        )
