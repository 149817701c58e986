"""One running system for each module, under watch."""

from collections.abc import Iterator

import pytest

from tests.hostile.watched import Watched


@pytest.fixture(scope="module")
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """With the settings that the module names ``SETTINGS``."""
    watched = Watched(tmp_path_factory.mktemp("hostile"), getattr(request.module, "SETTINGS", {}))
    try:
        watched.start()
        yield watched
    finally:
        watched.stop()
