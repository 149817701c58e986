"""Liveness, readiness and Prometheus metrics; none of them contains patient data.

Anybody may ask, so readiness and metrics are determined by one thread of their own, even while all
others are busy, and what it finds is the answer to everybody for ``KEPT_S``.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from db import disk_usage, quarantine
from db.context import SiteContext
from db.read_models import metrics, worklist
from db.read_models.destinations import DestinationRow
from lumbar.errors import LumbarError
from web.auth import TheSite

router = APIRouter(include_in_schema=False)

KEPT_S = 1.0


class SharedAnswers:
    """One per process; used by the event loop's thread only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "monitoring")
        self._answers: dict[str, tuple[float, Future[Response]]] = {}  # and when they were begun

    async def get(
        self, name: str, determine: Callable[[SiteContext], Response], site: SiteContext
    ) -> Response:
        """The answer, which ``determine`` gives unless there is a recent one."""
        begun, answer = self._answers.get(name, (0.0, None))
        now = time.monotonic()
        if answer is None or (answer.done() and now - begun >= KEPT_S):
            answer = self._thread.submit(determine, site)
            self._answers[name] = (now, answer)
        return await asyncio.shield(asyncio.wrap_future(answer))  # others wait for it, too


@router.get("/healthz")
async def healthz() -> Response:
    """200 as long as this process answers, even if all of its threads are busy."""
    return Response("alive\n", media_type="text/plain")


@router.get("/readyz")
async def readyz(request: Request, site: TheSite) -> Response:
    """200 while the database answers and the disks have room; else 503 and the reason."""
    return await _shared(request).get("ready", _readiness, site)


def _readiness(site: SiteContext) -> Response:
    try:
        with site.database.reading() as session:
            metrics.ping(session)
        disk_usage.require_room(site)
    except LumbarError as error:
        return Response(f"{error}\n", 503, media_type="text/plain")
    return Response("ready\n", media_type="text/plain")


@router.get("/metrics")
async def prometheus_metrics(request: Request, site: TheSite) -> Response:
    """Metrics in Prometheus format, counted in the database: every process reports the same."""
    return await _shared(request).get("metrics", _metrics, site)


def _shared(request: Request) -> SharedAnswers:
    shared: SharedAnswers = request.app.state.monitoring
    return shared


def _metrics(site: SiteContext) -> Response:
    registry = CollectorRegistry()
    registry.register(_SiteMetrics(site))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _SiteMetrics(Collector):
    def __init__(self, site: SiteContext) -> None:
        self._site = site

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._site.database.reading() as session:
            figures = metrics.figures(session, self._site.settings.destinations)
            waiting = worklist.waiting(session, self._site.ranking)
            usage = disk_usage.last_measured(session)
            quarantined = quarantine.count(session)
        yield _gauge(
            "lumbar_studies", "Studies by state", ["state"], _single_labels(figures.studies)
        )
        yield _gauge("lumbar_jobs", "Unfinished and dead jobs", ["kind", "state"], figures.jobs)
        yield _gauge(
            "lumbar_queue_age_seconds",
            "Age of the oldest job that waits, due or not",
            ["kind"],
            _single_labels(figures.queue_age_s),
        )
        yield from _destinations(figures.destinations)
        yield _gauge(
            "lumbar_last_hour",
            "Events in the last hour",
            ["what"],
            _single_labels(figures.last_hour),
        )
        yield _gauge(
            "lumbar_stage_seconds",
            "Duration of stages of the studies that ended in the last hour",
            ["stage", "quantile"],
            figures.stages_s,
        )
        yield _gauge(
            "lumbar_worklist",
            "Studies that wait to be read, or have left the worklist unread",
            ["what"],
            _single_labels(asdict(waiting)),
        )
        if self._site.store.mounted:
            fill = self._site.store.fill_ratio()
            refused = float(fill > self._site.settings.disk_refuse_above)
            yield GaugeMetricFamily("lumbar_disk_fill_ratio", "Fill of the store's disk, 0-1", fill)
            yield GaugeMetricFamily(
                "lumbar_disk_images_refused", "1 while images are refused as it is full", refused
            )
        if (home := disk_usage.home_fill(self._site)) is not None:
            yield GaugeMetricFamily(
                "lumbar_home_disk_fill_ratio", "Fill of another disk that holds home, 0-1", home
            )
        yield _gauge(
            "lumbar_disk_bytes",
            "What fills the store's disk, as last measured",
            ["kind"],
            {(kind.name.lower(),): count for kind, count in (usage.kinds if usage else {}).items()},
        )
        yield GaugeMetricFamily(
            "lumbar_images_unregistered",
            "Images received that have no rows yet",
            self._site.store.unregistered(),
        )
        yield GaugeMetricFamily(
            "lumbar_images_quarantined", "Registered instances that are not used", quarantined
        )
        yield GaugeMetricFamily(
            "lumbar_images_unregistrable",
            "Files received that cannot be registered",
            self._site.store.quarantined(),
        )


def _destinations(rows: Sequence[DestinationRow]) -> Iterator[GaugeMetricFamily]:
    """What waits for each destination."""
    jobs = {
        (row.destination, state): count
        for row in rows
        for state, count in {
            "waiting": row.waiting,
            "failing": row.failing,
            "dead": row.dead,
            "absent": row.absent,
        }.items()
    }
    yield _gauge(
        "lumbar_deliveries", "Reports by destination and state", ["destination", "state"], jobs
    )
    yield _gauge(
        "lumbar_destination_held",
        "1 while a destination fails and is only probed",
        ["destination"],
        {(row.destination,): float(row.held_since is not None) for row in rows},
    )
    yield _gauge(
        "lumbar_destination_age_seconds",
        "Age of the oldest report that waits",
        ["destination"],
        {(row.destination,): row.oldest_s for row in rows},
    )


def _single_labels(values: Mapping[Any, float]) -> dict[tuple[str], float]:
    return {(label,): value for label, value in values.items()}


def _gauge(
    name: str, documentation: str, labels: Sequence[str], values: Mapping[Any, float]
) -> GaugeMetricFamily:
    """A gauge with one value per tuple of labels."""
    gauge = GaugeMetricFamily(name, documentation, labels=labels)
    for label_values, value in values.items():
        gauge.add_metric(label_values, value)
    return gauge
