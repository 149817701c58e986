"""A site on each kind of database."""

from collections.abc import Callable

import pytest
from pydicom import Dataset

from db.context import SiteContext
from db.database import Database
from lumbar.settings import Settings
from lumbar.store.files import Store
from tests.factories.instances import make_slice


@pytest.fixture
def site(database: Database, tmp_path) -> SiteContext:
    settings = Settings(
        home=tmp_path / "home",
        retry_base_s=0.001,
        destinations={"pacs": "dicom://PACS@127.0.0.1:1"},
    )
    return SiteContext(settings, database, Store(tmp_path / "home" / "store").create())


@pytest.fixture
def slice_of() -> Callable[..., Dataset]:
    return make_slice
