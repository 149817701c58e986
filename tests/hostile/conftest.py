"""One running, monitored system per module."""

from collections.abc import Iterator

import pytest

from tests.hostile.monitored import MonitoredSystem


@pytest.fixture(scope="module")
def monitored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MonitoredSystem]:
    """A system with the module's ``SETTINGS``."""
    monitored = MonitoredSystem(
        tmp_path_factory.mktemp("hostile"), getattr(request.module, "SETTINGS", {})
    )
    try:
        monitored.start()
        yield monitored
    finally:
        monitored.stop()
