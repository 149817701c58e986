"""A site on each kind of database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset

from db.audit_writer import AuditWriter, Line
from db.context import SiteContext
from db.database import Database
from db.types import db_now
from lumbar.reports.report import Report
from lumbar.settings import Settings
from lumbar.store.files import Store
from tests.factories.instances import make_slice
from tests.factories.lanes import LaneInMemory
from tests.factories.reports import standard
from tests.servers import Redis
from tests.worker_process import WorkerProcess


@pytest.fixture
def site(database: Database, tmp_path) -> Iterator[SiteContext]:
    settings = Settings(
        home=tmp_path / "home",
        retry_base_s=0.001,
        destinations={name: f"dicom://{name.upper()}@127.0.0.1:1" for name in ("pacs", "archive")},
    )
    store = Store(tmp_path / "home" / "store").create()
    with closing_audit_writers():
        yield SiteContext(settings, database, store)
    store.close()  # descriptors are few


@contextmanager
def closing_audit_writers() -> Iterator[None]:
    """Ends, before the database goes, the threads of applications that nothing has stopped."""
    begun: list[AuditWriter] = []
    note = AuditWriter.note

    def remembering(writer: AuditWriter, *line: Line, **how: bool) -> None:
        begun.append(writer)
        note(writer, *line, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AuditWriter, "note", remembering)
        yield
    for writer in begun:
        writer.close()


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how wrong the database's clock is, in seconds; 0: it is right."""

    def turned(seconds: float) -> None:
        monkeypatch.setattr(db_now, "turned_s", seconds)

    return turned


@pytest.fixture
def slice_of() -> Callable[..., Dataset]:
    return make_slice


@pytest.fixture(scope="session")
def report() -> Report:
    return standard()


@pytest.fixture(scope="session")
def report_file(tmp_path_factory: pytest.TempPathFactory, report: Report) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.dcm"
    path.write_bytes(report.content)
    return path


@pytest.fixture
def lane(site: SiteContext, monkeypatch: pytest.MonkeyPatch) -> LaneInMemory:
    return LaneInMemory(site, monkeypatch)


@pytest.fixture(scope="module")
def worker(broker: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker on the module's own ``broker``."""
    with WorkerProcess(tmp_path_factory.mktemp("worker"), broker_url=broker.url) as process:
        process.does_the_next_job()
        yield process
