"""Floods of connections are summed in the log: no line is lost, and few are written."""

from structlog.testing import capture_logs

from scp import connection_log
from scp.connection_log import FIRST, MAX_LINES, ConnectionLog
from tests.system import wait_until

REFUSED = "connection.refused"


def refuse(log, times, peer="10.0.0.1", why="PDU too slow"):
    for _ in range(times):
        log.warn(REFUSED, peer=peer, calling="", why=why)


def test_the_first_have_lines_and_a_sum_stands_for_the_others():
    with capture_logs() as logged:
        with ConnectionLog() as log:
            refuse(log, 10_000)
            refuse(log, 1, peer="10.0.0.2")
            refuse(log, 1, why="address not allowed")
        peers = [line["peer"] for line in logged if "peer" in line]
        (summed,) = [line for line in logged if "times" in line]
    assert peers == ["10.0.0.1"] * FIRST + ["10.0.0.2", "10.0.0.1"]
    assert summed == {
        "event": REFUSED,
        "log_level": "warning",
        "why": "PDU too slow",
        "times": 10_000 - FIRST,
    }


def test_many_addresses_have_no_more_lines_than_a_limit():
    with capture_logs() as logged, ConnectionLog() as log:
        for number in range(MAX_LINES + 100):
            refuse(log, 1, peer=f"2001:db8::{number:x}")
    assert len(logged) == MAX_LINES + 1
    assert logged[-1]["times"] == 100


def test_a_sum_is_logged_when_the_period_ends_and_then_lines_again(monkeypatch):
    monkeypatch.setattr(connection_log, "PERIOD_S", 0.05)
    with capture_logs() as logged, ConnectionLog() as log:
        refuse(log, FIRST + 5)
        wait_until(lambda: any("times" in line for line in logged), 10, str)
        refuse(log, 1)
        assert "peer" in logged[-1]
