"""What fills the store's disk: our files by kind, and those of others on the same file system.

Maintenance measures it now and then, from the rows, and keeps the result for the page, `lumbar
status` and `/metrics`. How full the disk is at the moment, they ask the disk itself.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Subquery, case, func, literal, select
from sqlalchemy.orm import Session

from db import jobs
from db.context import SiteContext
from db.models import (
    ACTIVE_STUDY_STATES,
    Instance,
    Maintenance,
    ReadingState,
    ReportRow,
    Series,
    Study,
    StudyState,
)
from db.read_models import corrections
from db.reading_states import is_in
from db.types import read_clock
from lumbar.errors import Transient
from lumbar.log import get_logger
from lumbar.store import sizes
from lumbar.store.files import QUARANTINED, REPORTS, StoreFull, raising_store_full
from lumbar.store.shares import Share

log = get_logger()

OUTDATED_FROM = 0.05  # of the disk: a measurement that differs by so much is no longer true
NAMED_FROM = 0.02  # of all bytes; kinds of less are not named where images are refused


class Kind(StrEnum):
    """What lies on the disk; the value is for a person."""

    UNREAD = "images of studies that have not been read"
    UNDELIVERED = "images of studies with undelivered reports"
    CORRECTED = "images of studies with waiting corrections"
    FINISHED = "images of finished studies"
    ARRIVED = "images that wait for the database"
    QUARANTINED = "files that cannot be registered"
    REPORTS = "reports"
    UPLOADS = "uploads"
    DATABASE = "the database"
    OTHERS = "files that are not lumbar-triage's"

    @property
    def remedy(self) -> str:
        """What an operator can do about it."""
        return _REMEDIES[self]


_REMEDIES = {
    Kind.UNREAD: "mark studies as read, or set a shorter LUMBAR_WORKLIST_DAYS",
    Kind.UNDELIVERED: "see `lumbar jobs list`; repair the destination, or cancel the deliveries",
    Kind.CORRECTED: "take the corrections over, see `lumbar study correct`, or drop their copies",
    Kind.FINISHED: "they go after LUMBAR_KEEP_AT_LEAST_HOURS",
    Kind.ARRIVED: "repair the database",
    Kind.QUARANTINED: "drop them, see `lumbar quarantine list`",
    Kind.REPORTS: "use a larger disk",
    Kind.UPLOADS: "they go within an hour or two",
    Kind.DATABASE: "use a larger disk",
    Kind.OTHERS: "make room there, or give the store a disk of its own",
}


@dataclass(frozen=True)
class DiskUsage:
    """The bytes of each kind, the most first, and when they were counted."""

    measured_at: datetime
    kinds: dict[Kind, int]


def measure(site: SiteContext) -> DiskUsage:
    """Counts the bytes, and keeps them for ``last_measured``.

    Raises:
        Transient: the database or the disk is unavailable.
    """
    store, home = site.store, site.settings.home
    used, _ = store.used_and_free()
    with site.database.reading() as session:
        kinds = _images(session)
        reports = session.scalar(select(func.count()).select_from(ReportRow)) or 0
        now = read_clock(session)
    kinds[Kind.ARRIVED] = sizes.bytes_below(store.path(Share.PARENT))
    kinds[Kind.QUARANTINED] = sizes.bytes_below(store.path(QUARANTINED))
    kinds[Kind.REPORTS] = round(reports * sizes.mean_size(store.path(REPORTS)))
    if sizes.same_disk(home, store.root):
        kinds[Kind.UPLOADS] = sizes.bytes_below(home / "previews")
        kinds[Kind.DATABASE] = sizes.bytes_in(home)
    kinds[Kind.OTHERS] = max(0, used - sum(kinds.values()))
    with site.database.transaction() as session:
        row = session.scalars(select(Maintenance).with_for_update()).one()
        row.disk_usage = {
            "measured_at": now.isoformat(),
            "kinds": {kind.name: count for kind, count in kinds.items()},
        }
    return DiskUsage(now, _sorted(kinds))


def last_measured(session: Session) -> DiskUsage | None:
    """The last measurement; None before the first."""
    stored = session.scalar(select(Maintenance.disk_usage))
    if stored is None:
        return None
    kinds = {
        Kind[name]: count for name, count in stored["kinds"].items() if name in Kind.__members__
    }
    return DiskUsage(datetime.fromisoformat(stored["measured_at"]), _sorted(kinds))


def refusal(site: SiteContext) -> str | None:
    """Why images are refused because of the disk, and what can be done; None while they are not.

    Raises:
        StoreFull: the disk's usage cannot be read.
    """
    fill = site.store.fill_ratio()
    if fill <= site.settings.disk_refuse_above:
        return None
    kinds = _current_kinds(site)
    most = [(k, n) for k, n in kinds.items() if n >= NAMED_FROM * sum(kinds.values())]
    filled_by = "; ".join(f"{in_words(count)} {kind} ({kind.remedy})" for kind, count in most)
    return f"The disk is {fill:.0%} full: new images are refused. " + (
        f"What fills it: {filled_by}." if filled_by else "What fills it is being measured."
    )


def home_fill(site: SiteContext) -> float | None:
    """Usage of the disk of ``home``, 0-1; None if it is the store's.

    Raises:
        StoreFull: it cannot be read.
    """
    home = site.settings.home
    if sizes.same_disk(home, site.store.root):
        return None
    with raising_store_full(home):
        return sizes.fill_ratio(home) if home.exists() else None


def home_full(site: SiteContext) -> str | None:
    """What does not work because the disk of ``home`` is full, if the store has another one.

    Images are received as long as the store has room.

    Raises:
        StoreFull: the disk's usage cannot be read.
    """
    fill = home_fill(site)
    if fill is None or fill <= site.settings.disk_refuse_above:
        return None
    return (
        f"The disk of LUMBAR_HOME is {fill:.0%} full: uploads are refused"
        + (", and soon the database cannot be written" if not site.settings.database_url else "")
        + f". Make room in {site.settings.home}."
    )


def require_room(site: SiteContext) -> None:
    """Checks that there is room in ``home``, where uploads lie, and in the store.

    Raises:
        StoreFull: there is not, or it cannot be read.
    """
    if full := home_full(site):
        raise StoreFull(full)
    site.store.require_room(site.settings.disk_refuse_above)


def _current_kinds(site: SiteContext) -> dict[Kind, int]:
    """The last measurement; empty if the disk has filled up since, or the database is away."""
    used, free = site.store.used_and_free()
    try:
        with site.database.reading() as session:
            usage = last_measured(session)
    except Transient:
        return {}
    kinds = usage.kinds if usage else {}
    return kinds if abs(used - sum(kinds.values())) <= OUTDATED_FROM * (used + free) else {}


def alert(site: SiteContext) -> None:
    """Logs that images are refused, that nothing more can be removed, that ``home`` has no room.

    Raises:
        StoreFull: the disk's usage cannot be read.
    """
    if home_full(site):
        log.error("disk.home_full", fill=round(home_fill(site) or 0, 3))
    fill, settings = site.store.fill_ratio(), site.settings
    if fill <= settings.disk_remove_above:
        return
    kinds = {f"bytes_{kind.name.lower()}": n for kind, n in _current_kinds(site).items()}
    if fill > settings.disk_refuse_above:
        log.error("disk.images_refused", fill=round(fill, 3), **kinds)
    else:
        log.warning("retention.disk_still_full", fill=round(fill, 3), **kinds)


def in_words(count: int) -> str:
    """A number of bytes: ``3.2 GiB``."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _sorted(kinds: dict[Kind, int]) -> dict[Kind, int]:
    return dict(sorted(kinds.items(), key=lambda entry: entry[1], reverse=True))


def _images(session: Session) -> dict[Kind, int]:
    """The bytes of registered instances, by why they are kept."""
    studies = _kinds_of_studies()
    statement = (
        select(studies.c.kind, func.sum(Instance.size))
        .select_from(studies)
        .join(Series, Series.study_id == studies.c.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.removed_at.is_(None))
        .group_by(studies.c.kind)
    )
    return {Kind[name]: int(count) for name, count in session.execute(statement)}


def _kinds_of_studies() -> Subquery:
    active = Study.state.in_(ACTIVE_STUDY_STATES)
    unread = is_in(ReadingState.WAITING) & (Study.state != StudyState.NO_IMAGES)
    kind = case(
        (active, literal(Kind.UNREAD.name)),
        (jobs.has_undelivered_report(), literal(Kind.UNDELIVERED.name)),
        (corrections.copies_wait(), literal(Kind.CORRECTED.name)),
        (unread, literal(Kind.UNREAD.name)),
        else_=literal(Kind.FINISHED.name),
    )
    return select(Study.id, kind.label("kind")).where(Study.images_removed_at.is_(None)).subquery()
