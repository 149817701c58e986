"""Response times of the pages' queries over a million studies: ``python -m bench.queries``.

Ten questions, run through the pages' own functions, each time with different studies, names and
scanners:

 1. Which studies are to be read next? The worklist's first page of 50, with the number waiting.
 2. Which follow? The worklist's fifth page, and its last, where studies are ranked one by one.
 3. Which studies arrived last? The newest page of all studies.
 4. Where is the study with this accession number?
 5. Which studies has the patient with this number?
 6. Which patients' names begin like this? The beginning of a common name.
 7. Which severe L4/L5 canal stenoses did this scanner's studies have in the last seven days?
 8. Which findings are severe? The third page, from the newest.
 9. Everything about one study.
10. Is the system healthy? Dead jobs, jobs in flight, monitoring figures, the list of scanners.

In addition, with a limit of one second: severities by week, for one scanner and for all.
"""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session

from bench.bulk_load import fill
from bench.query_plans import scanned_tables
from db import operator_actions
from db.database import Database
from db.models import JobState, ReadingState, Study
from db.read_models import findings, metrics, statistics, worklist
from db.read_models.findings import FindingFilter
from db.read_models.study_detail import study_detail
from db.read_models.worklist import StudyFilter
from db.read_models.worklist_rows import Ranking
from lumbar.spine.anatomy import Condition, Level, Severity
from tests.servers import Postgres

EXAMPLE = (
    "example: python -m bench.queries --studies 1000000 --keep build/bench-queries"
    "  # 15 GB, 20 minutes the first time"
)
# Rows per page.
ROWS = 50
WARM_UP, ROUNDS = 10, 50
TARGET_MS, WEEKS_MS = 100.0, 1000.0
NAMES = (
    "Müller",
    "schm",
    "mey",
    "Schneider",
    "anna m",
    "weber^p",
    "fisch",
    "wagner",
    "beck",
    "thomas",
)
SEVERE = Severity.SEVERE
ALL_SEVERE = FindingFilter([SEVERE])
Run = Callable[[Session], object]


@dataclass(frozen=True)
class Query:
    """A query of the pages; ``number`` is that of its question in the list above."""

    number: str
    title: str
    run: Run
    limit_ms: float = TARGET_MS


@dataclass(frozen=True)
class Result:
    """The response times of a query; ``scanned``: the large tables with a sequential scan."""

    median_ms: float
    p95_ms: float
    scanned: Sequence[str]
    in_time: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--studies",
        type=int,
        default=1_000_000,
        help="studies in PostgreSQL, 25 findings each; 0: skip it",
    )
    parser.add_argument(
        "--sqlite-studies", type=int, default=10_000, help="studies in SQLite; 0: skip it"
    )
    parser.add_argument(
        "--keep", type=Path, help="folder for the databases, reused by another run on the same day"
    )
    parser.add_argument(
        "--database-url", help="an empty PostgreSQL database to use instead of starting a server"
    )
    arguments = parser.parse_args()
    results: dict[str, dict[tuple[str, str], Result]] = {}
    with _folder(arguments.keep) as folder:
        if arguments.studies:
            with _postgresql(folder, arguments.database_url) as url:
                results["PostgreSQL"] = measure_all(url, arguments.studies)
        if arguments.sqlite_studies:
            results["SQLite"] = measure_all(
                f"sqlite:///{folder / 'studies.sqlite'}", arguments.sqlite_studies
            )
    show(results)
    passed = [
        result.in_time and not result.scanned
        for by_query in results.values()
        for result in by_query.values()
    ]
    sys.exit(0 if all(passed) else 1)


def measure_all(url: str, studies: int) -> dict[tuple[str, str], Result]:
    """Fills the database if it is empty; returns every query's result by number and title."""
    database = Database.connect(url)
    try:
        if not inspect(database.engine).has_table("study"):
            fill(database, studies)
        title = f"{database.engine.dialect.name}: queries"
        return {
            (query.number, query.title): measure(database, query)
            for query in track(queries(database), title)
        }
    finally:
        database.close()


def measure(database: Database, query: Query) -> Result:
    """``ROUNDS`` runs after ``WARM_UP``, each with a connection and a transaction, like a page."""
    times = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        with database.reading() as session:
            query.run(session)
        times.append(1000 * (time.perf_counter() - start))
    p95 = quantiles(times[WARM_UP:], n=20, method="inclusive")[-1]
    postgresql = database.engine.dialect.name == "postgresql"
    scanned = scanned_tables(database, query.run) if postgresql else []
    return Result(median(times[WARM_UP:]), p95, scanned, p95 <= query.limit_ms)


def queries(database: Database) -> list[Query]:
    """The queries, with random arguments from this database for every run."""
    rng, ranking = random.Random(1), Ranking(days=7)
    with database.reading() as session:
        cursors = _cursors(session, ranking)
        third = _third_page(session)
        scanners = statistics.scanners(session)
        ids = rng.sample(range(1, (session.scalar(select(func.max(Study.id))) or 0) + 1), 500)
        sample = session.scalars(select(Study).where(Study.id.in_(ids))).all()

    def listed(session: Session, after: str | None = None) -> object:
        return worklist.worklist(session, ranking, limit=ROWS, after=after)

    def search(text: Callable[[], str]) -> Run:
        return lambda session: worklist.studies(
            session, ranking, limit=ROWS, only=StudyFilter(text())
        )

    def expired(session: Session, **only: bool) -> object:
        wanted = StudyFilter(reading=ReadingState.EXPIRED, **only)
        return worklist.studies(session, ranking, limit=ROWS, only=wanted)

    def stenoses(session: Session) -> object:
        since = datetime.now(UTC) - timedelta(days=7)
        only = FindingFilter(
            [SEVERE], [Condition.SPINAL_CANAL_STENOSIS], [Level.L4_L5], rng.choice(scanners), since
        )
        return findings.page(session, only, limit=ROWS)

    pages: list[tuple[str, str, Run]] = [
        ("1", "worklist, first page", listed),
        ("1", "number waiting", lambda session: worklist.waiting(session, ranking)),
        ("2", "worklist, fifth page", lambda session: listed(session, cursors[:5][-1])),
        ("2", "worklist, last page", lambda session: listed(session, cursors[-1])),
        ("3", "all studies, newest page", search(lambda: "")),
        ("3", "expired, unread", lambda session: expired(session)),
        ("3", "expired, unread, severe", lambda session: expired(session, severe=True)),
        ("4", "an accession number", search(lambda: rng.choice(sample).accession_number)),
        (
            "5",
            "a patient number",
            search(lambda: rng.choice(sample).patient.patient_identifier),
        ),
        ("6", "the beginning of a name", search(lambda: rng.choice(NAMES))),
        ("7", "severe L4/L5 canal, 7 days, a scanner", stenoses),
        (
            "8",
            "severe findings, third page",
            lambda s: findings.page(s, ALL_SEVERE, limit=ROWS, after=third),
        ),
        (
            "9",
            "one study",
            lambda session: study_detail(session, rng.choice(sample).study_instance_uid, ranking),
        ),
        (
            "10",
            "dead jobs",
            lambda session: operator_actions.list_jobs(
                session, states=[JobState.DEAD], limit=4 * ROWS
            ),
        ),
        ("10", "in flight", statistics.in_flight),
        ("10", "figures", metrics.figures),
        ("10", "scanners", statistics.scanners),
    ]
    weeks: list[tuple[str, str, Run]] = [
        (
            "–",
            "weeks, a scanner",
            lambda session: statistics.by_week(session, scanner=rng.choice(scanners)),
        ),
        ("–", "weeks, all", statistics.by_week),
    ]
    return [*(Query(*page) for page in pages), *(Query(*week, WEEKS_MS) for week in weeks)]


def _cursors(session: Session, ranking: Ranking) -> list[str | None]:
    """The cursor of each page of the worklist."""
    cursors: list[str | None] = [None]
    while (
        after := worklist.worklist(session, ranking, limit=ROWS, after=cursors[-1]).next_after
    ) is not None:
        cursors.append(after)
    return cursors


def _third_page(session: Session) -> str | None:
    after = None
    for _ in range(2):
        after = findings.page(session, ALL_SEVERE, limit=ROWS, after=after).next_after
    return after


def show(results: dict[str, dict[tuple[str, str], Result]]) -> None:
    """One row per query, one column per database: median and 95th percentile."""
    table = Table(caption=f"ms, median and p95 of {ROUNDS}; red: too slow, or scans a large table")
    for title in ("", "query", *results):
        table.add_column(title, justify="left" if title in ("", "query") else "right")
    for key in next(iter(results.values()), ()):
        cells = []
        for by_query in results.values():
            result = by_query[key]
            scans = [f"scans {name}" for name in result.scanned]
            text = " ".join([f"{result.median_ms:.1f} {result.p95_ms:7.1f}", *scans])
            cells.append(text if result.in_time and not scans else f"[red]{text}[/red]")
        table.add_row(*key, *cells)
    Console().print(table)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with TemporaryDirectory() as scratch:
        yield Path(scratch)


@contextmanager
def _postgresql(folder: Path, url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    with _PersistentPostgres(folder) as server:
        yield server.url()


class _PersistentPostgres(Postgres):
    """A server whose cluster is in ``folder`` and is reused if it exists."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        cluster = folder.absolute() / "cluster"
        if cluster.exists():
            shutil.rmtree(self._cluster)
        else:
            shutil.move(self._cluster, cluster)
        self._cluster.symlink_to(cluster)


if __name__ == "__main__":
    main()
