"""What many tests need: databases of both kinds, servers, phantoms and real files."""

import fcntl
import gc
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import settings

from db import passwords
from db.database import Database
from lumbar.networks import load_keypoints
from lumbar.phantoms import PhantomTruth, write_study
from lumbar.phantoms.study import draw_plan
from lumbar.spine.keypoint_input import KeypointDetector
from tests.databases import sqlite_database, statements_compiled_once
from tests.peers import Orthanc
from tests.servers import Postgres, Redis
from tests.system import System

settings.register_profile(
    "any machine", deadline=None
)  # how long a test takes depends on what else runs
settings.load_profile("any machine")

# In a file all of whose tests are slow.
ALL_SLOW = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.slow", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--serial",
        choices=["only", "never"],
        help="only the tests marked as serial, or none of them",
    )


def pytest_configure() -> None:
    gc.set_threshold(50_000)  # looking for garbage as often as usual takes a tenth of the time


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a test that is wanted are not imported."""
    if collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    if config.getoption("--serial") == "only":
        return "mark.serial" not in text or None
    if "not slow" in config.getoption("markexpr"):
        return ALL_SLOW.search(text) is not None or None
    return None


def pytest_collection_finish() -> None:
    gc.freeze()  # modules and tests are never garbage


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Files with slow tests first, so that none of them is left to the end, when cores are idle.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    wanted = config.getoption("--serial")
    if wanted is None:
        return
    serial = [item for item in items if item.get_closest_marker("serial")]
    others = [item for item in items if not item.get_closest_marker("serial")]
    items[:], left_out = (serial, others) if wanted == "only" else (others, serial)
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def production_hasher() -> Iterator[PasswordHasher]:
    """The hasher of passwords as shipped; while tests run, a quick one of the same kind is used."""
    shipped = passwords._hasher
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    yield shipped
    passwords._hasher = shipped


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    with statements_compiled_once():
        yield


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.no_cover]),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database at the newest schema, of each kind in turn."""
    if request.param == "sqlite":
        yield from _closing(sqlite_database(tmp_path / "lumbar.sqlite"))
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.migrated_database()
        yield from _closing(url)
        postgres.drop(url)


def _closing(url: str) -> Iterator[Database]:
    database = Database.connect(url)
    yield database
    database.close()


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("distributed", marks=[pytest.mark.postgresql, pytest.mark.no_cover]),
    ]
)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """The whole system, not yet started: on SQLite without a broker; on PostgreSQL with Celery.

    Its database is at the newest schema.
    """
    settings = {}
    if request.param == "distributed":
        settings["LUMBAR_DATABASE_URL"] = request.getfixturevalue("postgres").migrated_database()
        settings["LUMBAR_BROKER_URL"] = request.getfixturevalue("redis").url
    system = System(tmp_path / "system", settings)
    if request.param == "embedded":
        sqlite_database(system.home / "lumbar.sqlite")
    yield system
    system.kill()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, PhantomTruth]]:
    """A phantom study of a seed, made once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @cache
    def of(seed: int) -> tuple[Path, PhantomTruth]:
        folder = shared / f"phantom-{seed}"
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                write_study(folder.with_suffix(".part"), seed)
                folder.with_suffix(".part").rename(folder)
        return folder, draw_plan(seed).truth

    return of


@pytest.fixture(scope="session")
def keypoints() -> KeypointDetector:
    """The shipped level locator."""
    return load_keypoints()


@pytest.fixture(scope="session")
def real_files() -> Path:
    """The folder of real DICOM files; CONTRIBUTING.md names them and where to get them."""
    folder = os.environ.get("LUMBAR_TEST_FILES")
    if not folder:
        pytest.skip("LUMBAR_TEST_FILES is not set: no real files to read")
    return Path(folder)
