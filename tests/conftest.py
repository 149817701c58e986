"""What many tests need: databases of both kinds, servers, phantoms and real files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from db import schema
from db.database import Database
from lumbar.networks import load_keypoints
from lumbar.phantoms import PhantomTruth, write_study
from lumbar.spine.keypoint_input import KeypointDetector
from tests.peers import Orthanc
from tests.servers import Postgres, Redis
from tests.system import System

settings.register_profile(
    "any machine", deadline=None
)  # how long a test takes depends on what else runs
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database at the newest schema, of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'lumbar.sqlite'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    database = Database.connect(url)
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture(params=["embedded", "distributed"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """The whole system, not yet started: SQLite and no broker, then PostgreSQL, Redis and Celery."""
    settings = {}
    if request.param == "distributed":
        settings["LUMBAR_DATABASE_URL"] = request.getfixturevalue("postgres").new_database()
        settings["LUMBAR_BROKER_URL"] = request.getfixturevalue("redis").url
    system = System(tmp_path / "system", settings)
    yield system
    system.kill()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, PhantomTruth]]:
    """A phantom study of a seed, made once."""
    made: dict[int, tuple[Path, PhantomTruth]] = {}

    def of(seed: int) -> tuple[Path, PhantomTruth]:
        if seed not in made:
            folder = tmp_path_factory.mktemp(f"phantom-{seed}")
            made[seed] = folder, write_study(folder, seed)
        return made[seed]

    return of


@pytest.fixture(scope="session")
def keypoints() -> KeypointDetector:
    """The shipped level locator."""
    return load_keypoints()


@pytest.fixture(scope="session")
def real_files() -> Path:
    """The folder of real DICOM files; what they are, and where to get them, stands in CONTRIBUTING.md."""
    folder = os.environ.get("LUMBAR_TEST_FILES")
    if not folder:
        pytest.skip("LUMBAR_TEST_FILES is not set: no real files to read")
    return Path(folder)
