"""A few thousand damaged messages; ``make hostile`` sends as many as are asked for."""

import pytest

from tests.hostile import fuzzer

pytestmark = pytest.mark.slow

COUNT = 3000
SETTINGS = {"LUMBAR_NETWORK_TIMEOUT_S": "5"}


def test_damaged_messages_hang_and_harm_nothing(watched):
    tally = fuzzer.run(("127.0.0.1", watched.port), seed=20261125, count=COUNT, lines=4)
    assert tally.messages >= COUNT
    assert {"0000", "C000", "A900", "aborted", "accepted"} <= set(tally.answers)
    watched.require_unharmed()
