"""`lumbar status`: the state of the system on one screen."""

from collections.abc import Iterator
from typing import Any

import typer

from commands.output import AsFormat, Format, print_records
from commands.version import version_lines
from db import disk_usage, quarantine, schema
from db.context import SiteContext
from db.read_models import destinations, metrics
from db.read_models.statistics import in_flight
from db.read_models.worklist import MAX_EXPIRED, waiting
from lumbar.peers.destinations import Destination, DimseDestination
from lumbar.settings import Settings
from lumbar.store.files import QUARANTINED

app = typer.Typer()

COLUMNS = ("topic", "what", "value", "note")
Line = tuple[str, str, Any, str]  # in the order of COLUMNS


@app.command(epilog="Example: lumbar status --format json")
def status(form: AsFormat = Format.TABLE) -> None:
    """Shows studies and jobs in flight, the worklist, disk, destinations and weights."""
    site = SiteContext.open(Settings.load())
    lines = [*_version(), *_database(site), *_disk(site), *_destinations(site)]
    print_records([dict(zip(COLUMNS, line, strict=True)) for line in lines], COLUMNS, form)


def _version() -> Iterator[Line]:
    code, weights = version_lines()
    yield "system", "version", code, ""
    yield (
        "system",
        "weights",
        weights.removeprefix("weights: "),
        "as its description states; checked when loaded",
    )


def _database(site: SiteContext) -> Iterator[Line]:
    with site.database.reading() as session:
        figures = metrics.figures(session, site.settings.destinations)
        leases_expired = in_flight(session).leases_expired
        unread = waiting(session, site.ranking)
        quarantined = quarantine.count(session)
    yield "system", "schema", schema.newest(), site.database.engine.dialect.name
    yield "worklist", "unread", unread.unread, ""
    yield "worklist", "unread, severe", unread.severe, ""
    expired = f"`lumbar worklist --expired` lists them; counted up to {MAX_EXPIRED}"
    if days := site.settings.worklist_days:
        soon = f"{days:g} days after their last result (LUMBAR_WORKLIST_DAYS)"
        yield "worklist", "severe, expire within 24 h", unread.severe_expiring, soon
    yield "worklist", "expired, unread", unread.expired, expired
    yield "worklist", "expired, unread, severe", unread.expired_severe, ""
    for study_state, count in figures.studies.items():
        yield "studies", str(study_state), count, ""
    for name, count in sorted(figures.last_hour.items()):
        if name.startswith("studies_"):
            yield "studies", name.removeprefix("studies_"), count, "in the last hour"
    for (kind, job_state), count in sorted(figures.jobs.items()):
        yield "jobs", f"{kind}, {job_state}", count, ""
    for kind, age_s in figures.queue_age_s.items():
        yield "jobs", f"{kind}, oldest waiting", round(age_s), "s"
    yield "jobs", "leases expired", leases_expired, ""
    yield "images", "quarantined", quarantined, "`lumbar quarantine list` shows them"


def _disk(site: SiteContext) -> Iterator[Line]:
    settings = site.settings
    limits = (
        f"images are removed above {settings.disk_remove_above:g}, "
        f"refused above {settings.disk_refuse_above:g}"
    )
    fill = round(site.store.fill_ratio(), 3) if site.store.mounted else "not mounted"
    yield "disk", "fill, 0-1", fill, limits
    if site.store.mounted and (refusal := disk_usage.refusal(site)):
        yield "disk", "images are refused", "yes", refusal
    if full := disk_usage.home_full(site):
        yield "disk", "home is full", "yes", full
    with site.database.reading() as session:
        usage = disk_usage.last_measured(session)
    for kind, count in (usage.kinds if usage else {}).items():
        yield "disk", str(kind), disk_usage.in_words(count), kind.remedy
    yield "images", "not registered yet", site.store.unregistered(), ""
    quarantined = f"in {site.store.path(QUARANTINED)}"
    yield "images", "that cannot be registered", site.store.quarantined(), quarantined


def _destinations(site: SiteContext) -> Iterator[Line]:
    settings = site.settings
    with site.database.reading() as session:
        rows = destinations.destinations(session, settings.destinations)
    for row in rows:
        name = row.destination
        address = _address(settings.destination(name)) if row.configured else "not configured"
        counts = {"waiting": row.waiting, "dead": row.dead, "absent": row.absent}
        notes = [f"{count} {what}" for what, count in counts.items() if count]
        if row.held_since:
            notes.append(f"held since {row.held_since:%Y-%m-%d %H:%M} UTC: {row.last_error}")
        yield "destinations", name, address, "; ".join(notes)
    if not rows:
        yield "destinations", "none", None, "no report is sent"


def _address(destination: Destination) -> str:
    """A destination's address, without its credentials."""
    if isinstance(destination, DimseDestination):
        return f"dicom://{destination.called_ae_title}@{destination.host}:{destination.port}"
    return destination.url
