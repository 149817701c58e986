"""Services are started again after a wait that grows; only a setting refused at first ends all."""

import random
import sys
import threading
import time

import pytest

from commands import supervisor
from commands.supervisor import LONGEST_WAIT_S, STEADY_S, _Service
from lumbar.errors import Permanent
from lumbar.settings import Settings
from worker import celery_app


class Clock:
    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return Clock()


def program(monkeypatch, code):
    monkeypatch.setattr(supervisor, "PROGRAM", (sys.executable, "-c", code))


def end(service):
    service.wait(time.monotonic() + 10)


def waits(service, clock, ran_s=0.0):
    """The wait after the service has ended once more; it is started after it, not before."""
    service._process.wait()
    clock.s += ran_s
    service.keep_running()
    wait_s = service._start_at - clock.s
    clock.s += wait_s - 0.01
    service.keep_running()
    assert service._process is None
    clock.s += 0.02
    service.keep_running()
    assert service._process is not None
    return round(wait_s, 3)


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_wait_grows_whatever_the_status_and_begins_anew_after_a_steady_run(
    monkeypatch, clock, status
):
    program(monkeypatch, f"raise SystemExit({status})")
    service = _Service("sweep", essential=False, clock=clock)
    assert [waits(service, clock) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, LONGEST_WAIT_S]
    assert waits(service, clock, ran_s=STEADY_S) == 1
    end(service)


def test_only_an_essential_service_that_refuses_its_settings_at_first_ends_all(monkeypatch, clock):
    program(monkeypatch, "raise SystemExit(2)")
    for essential in (False, True):
        service = _Service("scp", essential, clock)
        service._process.wait()
        if essential:
            with pytest.raises(Permanent, match="`lumbar scp` ended with status 2"):
                service.keep_running()
        else:
            assert waits(service, clock) == 1
        end(service)
    program(monkeypatch, "raise SystemExit(1)")
    service = _Service("scp", True, clock)
    assert waits(service, clock) == 1
    program(monkeypatch, "raise SystemExit(2)")
    assert [waits(service, clock) for _ in range(2)] == [2, 4]
    end(service)


def test_a_program_that_cannot_be_started_now_is_started_later(monkeypatch, clock):
    monkeypatch.setattr(supervisor, "PROGRAM", ("/nothing/there",))
    service = _Service("sweep", False, clock)
    assert service._process is None
    program(monkeypatch, "pass")
    clock.s += 1.01
    service.keep_running()
    assert service._process.wait() == 0
    end(service)


def test_a_worker_that_ends_though_nobody_told_it_to_is_a_failure(monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr(celery_app.WorkController, "start", lambda self: None)
    app = celery_app.create_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    with pytest.raises(Permanent, match="ended by itself"):
        celery_app.run_worker(app, stop)
    monkeypatch.setattr(celery_app.WorkController, "start", lambda self: stop.set())
    celery_app.run_worker(app, stop)
