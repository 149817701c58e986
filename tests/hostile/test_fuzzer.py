"""A few thousand damaged messages; ``make hostile`` sends more."""

import pytest

from tests.hostile import fuzzer

pytestmark = pytest.mark.slow

COUNT = 3000
SETTINGS = {"LUMBAR_NETWORK_TIMEOUT_S": "5"}


def test_damaged_messages_cause_no_hang_and_no_harm(monitored):
    tally = fuzzer.run(
        ("127.0.0.1", monitored.port), seed=20261125, count=COUNT, connections_at_once=4
    )
    assert tally.messages >= COUNT
    assert {"0000", "C000", "A900", "aborted", "accepted"} <= set(tally.responses)
    monitored.require_unharmed()
