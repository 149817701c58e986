"""How fast the pages' questions are answered over a million studies: ``python -m bench.queries``.

Ten questions, asked through the functions that the pages use, each time with other studies, names and scanners:

 1. What is to be read next? The worklist's first page of 50, with how much waits.
 2. And behind that? The worklist's fifth page, and its last, where studies are ranked one by one.
 3. What came last? The newest page of all studies.
 4. Where is the study with this accession number?
 5. Which studies has the patient with this number?
 6. Which studies are of people whose name begins like this? A common one.
 7. Which severe L4/L5 canal stenoses did this scanner's studies have in the last seven days?
 8. Which findings are severe? The third page, from the newest.
 9. What is known of this study?
10. Is all well? Dead jobs, what is in flight, the figures for monitoring, the scanners there are.

Beside them, with a second to answer in: how the severities moved, week by week, of a scanner and of all.
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
from bench.query_plans import scanned
from db import operator_actions
from db.database import Database
from db.models import JobState, Study
from db.read_models import findings, metrics, statistics, worklist
from db.read_models.findings import FindingFilter
from db.read_models.study_detail import study_detail
from db.read_models.worklist import StudyFilter
from db.read_models.worklist_rows import Ranking
from lumbar.spine.anatomy import Condition, Level, Severity
from tests.servers import Postgres

EXAMPLE = "example: python -m bench.queries --studies 1000000 --keep build/questions  # 15 GB, 20 minutes at first"
ROWS = 50  # of a page
WARM, ROUNDS = 10, 50
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
Ask = Callable[[Session], object]


@dataclass(frozen=True)
class Question:
    number: str
    words: str
    ask: Ask
    within_ms: float = TARGET_MS


@dataclass(frozen=True)
class Answered:
    """What became of a question; ``scanned``: the big tables that were read from end to end."""

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
        help="in PostgreSQL, 25 findings each; 0: leave it out",
    )
    parser.add_argument(
        "--sqlite-studies", type=int, default=10_000, help="in SQLite; 0: leave it out"
    )
    parser.add_argument(
        "--keep", type=Path, help="folder for the databases, which a run on the same day finds"
    )
    parser.add_argument(
        "--database-url", help="an empty PostgreSQL database instead of a server of its own"
    )
    chosen = parser.parse_args()
    told: dict[str, dict[tuple[str, str], Answered]] = {}
    with _folder(chosen.keep) as folder:
        if chosen.studies:
            with _postgresql(folder, chosen.database_url) as url:
                told["PostgreSQL"] = answers(url, chosen.studies)
        if chosen.sqlite_studies:
            told["SQLite"] = answers(
                f"sqlite:///{folder / 'questions.sqlite'}", chosen.sqlite_studies
            )
    show(told)
    sys.exit(
        0
        if all(one.in_time and not one.scanned for of in told.values() for one in of.values())
        else 1
    )


def answers(url: str, studies: int) -> dict[tuple[str, str], Answered]:
    """Fills the database unless it is full, and asks everything; by number and words."""
    database = Database.connect(url)
    try:
        if not inspect(database.engine).has_table("study"):
            fill(database, studies)
        asked = questions(database)
        return {
            (q.number, q.words): answered(database, q)
            for q in track(asked, f"{database.engine.dialect.name}: asks")
        }
    finally:
        database.close()


def answered(database: Database, question: Question) -> Answered:
    """``ROUNDS`` times, after some that do not count; a connection and a transaction each, as for a page."""
    times = []
    for _ in range(WARM + ROUNDS):
        start = time.perf_counter()
        with database.reading() as session:
            question.ask(session)
        times.append(1000 * (time.perf_counter() - start))
    p95 = quantiles(times[WARM:], n=20, method="inclusive")[-1]
    whole = scanned(database, question.ask) if database.engine.dialect.name == "postgresql" else []
    return Answered(median(times[WARM:]), p95, whole, p95 <= question.within_ms)


def questions(database: Database) -> list[Question]:
    """With arguments of this database, drawn anew for every call."""
    rng, ranking = random.Random(1), Ranking()
    with database.reading() as session:
        places = _places(session, ranking)
        third = _third_page(session)
        scanners = statistics.scanners(session)
        ids = rng.sample(range(1, (session.scalar(select(func.max(Study.id))) or 0) + 1), 500)
        sought = session.scalars(select(Study).where(Study.id.in_(ids))).all()

    def listed(session: Session, after: str | None = None) -> object:
        return worklist.worklist(session, ranking, limit=ROWS, after=after)

    def looked_for(text: Callable[[], str]) -> Ask:
        return lambda session: worklist.studies(
            session, ranking, limit=ROWS, only=StudyFilter(text())
        )

    def stenoses(session: Session) -> object:
        since = datetime.now(UTC) - timedelta(days=7)
        only = FindingFilter(
            [SEVERE], [Condition.SPINAL_CANAL_STENOSIS], [Level.L4_L5], rng.choice(scanners), since
        )
        return findings.page(session, only, limit=ROWS)

    asked: list[tuple[str, str, Ask]] = [
        ("1", "worklist, first page", listed),
        ("1", "what waits", lambda session: worklist.waiting(session, ranking)),
        ("2", "worklist, fifth page", lambda session: listed(session, places[:5][-1])),
        ("2", "worklist, last page", lambda session: listed(session, places[-1])),
        ("3", "all studies, newest page", looked_for(lambda: "")),
        ("4", "an accession number", looked_for(lambda: rng.choice(sought).accession_number)),
        (
            "5",
            "a patient number",
            looked_for(lambda: rng.choice(sought).patient.patient_identifier),
        ),
        ("6", "the beginning of a name", looked_for(lambda: rng.choice(NAMES))),
        ("7", "severe L4/L5 canal, 7 days, a scanner", stenoses),
        (
            "8",
            "severe findings, third page",
            lambda s: findings.page(s, ALL_SEVERE, limit=ROWS, after=third),
        ),
        (
            "9",
            "one study",
            lambda session: study_detail(session, rng.choice(sought).study_instance_uid, ranking),
        ),
        (
            "10",
            "dead jobs",
            lambda session: operator_actions.listed(
                session, states=[JobState.DEAD], limit=4 * ROWS
            ),
        ),
        ("10", "in flight", statistics.in_flight),
        ("10", "figures", metrics.figures),
        ("10", "scanners", statistics.scanners),
    ]
    weeks: list[tuple[str, str, Ask]] = [
        (
            "–",
            "weeks, a scanner",
            lambda session: statistics.by_week(session, scanner=rng.choice(scanners)),
        ),
        ("–", "weeks, all", statistics.by_week),
    ]
    return [Question(*one) for one in asked] + [Question(*one, WEEKS_MS) for one in weeks]


def _places(session: Session, ranking: Ranking) -> list[str | None]:
    """After which study each page of the worklist begins."""
    places: list[str | None] = [None]
    while (
        after := worklist.worklist(session, ranking, limit=ROWS, after=places[-1]).next_after
    ) is not None:
        places.append(after)
    return places


def _third_page(session: Session) -> str | None:
    after = None
    for _ in range(2):
        after = findings.page(session, ALL_SEVERE, limit=ROWS, after=after).next_after
    return after


def show(told: dict[str, dict[tuple[str, str], Answered]]) -> None:
    """A row a question, a column a database: the median and the 95th percentile."""
    table = Table(
        caption=f"milliseconds, median and p95 of {ROUNDS}; in red what is late or reads a big table whole"
    )
    for title in ("", "question", *told):
        table.add_column(title, justify="left" if title in ("", "question") else "right")
    for key in next(iter(told.values()), ()):
        cells = []
        for of in told.values():
            one = of[key]
            text = " ".join(
                [
                    f"{one.median_ms:.1f} {one.p95_ms:7.1f}",
                    *(f"scans {name}" for name in one.scanned),
                ]
            )
            cells.append(text if one.in_time and not one.scanned else f"[red]{text}[/red]")
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
    with _Kept(folder) as server:
        yield server.url()


class _Kept(Postgres):
    """A server whose cluster lies in ``folder``, and is used again where it is there."""

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
