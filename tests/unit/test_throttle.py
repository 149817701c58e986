"""Each key passes once per period, and no more keys are remembered than are allowed."""

from concurrent.futures import ThreadPoolExecutor

from lumbar.throttle import Throttle


class Clock:
    """A timer that is set by the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_is_claimed_once_per_period_and_each_key_on_its_own() -> None:
    clock = Clock()
    throttle = Throttle(60, 10, clock)
    assert [throttle.claim("a"), throttle.claim("a"), throttle.claim("b")] == [True, False, True]
    clock.now_s += 59.9
    assert not throttle.claim("a")
    clock.now_s += 0.1
    assert throttle.claim("a")
    assert not throttle.claim("a")


def test_a_key_stays_due_until_it_is_recorded() -> None:
    clock = Clock()
    throttle = Throttle(60, 10, clock)
    assert throttle.due("a")
    assert throttle.due("a")  # the work failed: nothing was recorded
    throttle.record("a")
    assert not throttle.due("a")
    clock.now_s += 60
    assert throttle.due("a")


def test_a_refused_claim_does_not_prolong_the_period() -> None:
    clock = Clock()
    throttle = Throttle(60, 10, clock)
    throttle.claim("a")
    clock.now_s += 30
    assert not throttle.claim("a")
    clock.now_s += 30
    assert throttle.claim("a")


def test_of_too_many_keys_the_oldest_is_dropped() -> None:
    throttle = Throttle(60, 2, Clock())
    for key in "abc":
        throttle.record(key)
    assert [throttle.due(key) for key in "abc"] == [True, False, False]


def test_one_of_many_threads_gets_the_claim() -> None:
    throttle = Throttle(60, 10)
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(throttle.claim, ["a"] * 200))
    assert sum(claims) == 1
