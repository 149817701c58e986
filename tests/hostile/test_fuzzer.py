"""A few thousand damaged messages; ``make hostile`` sends as many as are asked for."""

from tests.hostile import fuzzer


def test_damaged_messages_hang_and_harm_nothing(watched):
    tally = fuzzer.run(watched, seed=20261125, count=3000)
    assert tally.messages > 1000
    assert len(tally.endings) >= 2
