"""Damaged PDUs and DIMSE messages by the thousand: ``python -m tests.hostile.fuzzer --seed 1 --count 100000``.

Raw sockets send them, several messages per connection, while another process sends a C-ECHO every few seconds, which
must be answered within two. Every connection must end once we have closed our side.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.hostile import wire
from tests.hostile.monitored import MonitoredSystem
from tests.hostile.mutations import Conversation, conversations

ORDINARY = wire.associate_rq()
ECHO_WITHIN_S = 2.0
ECHO_EVERY_S = 3.0
RESPONSE_WITHIN_S = 0.25  # some damaged messages rightly get none
ENDS_WITHIN_S = 20.0


@dataclass
class Tally:
    """What was sent, and the responses."""

    messages: int = 0
    connections: int = 0
    responses: Counter[str] = field(default_factory=Counter)  # by status, or by kind of PDU
    hung: int = 0  # connections that did not end
    echoes: list[float] = field(default_factory=list)  # seconds that each took

    def add(self, other: "Tally") -> None:
        self.messages += other.messages
        self.connections += other.connections
        self.responses += other.responses
        self.hung += other.hung


def fuzz(address: tuple[str, int], seed: int, count: int, tally: Tally) -> None:
    """Sends so many messages and counts the responses; none is an error by itself."""
    for conversation in conversations(seed):
        if tally.messages >= count:
            return
        tally.connections += 1
        try:
            with socket.create_connection(address, timeout=ENDS_WITHIN_S) as stream:
                tally.responses += converse(stream, conversation, tally)
        except TimeoutError:
            tally.hung += 1
        except (OSError, AssertionError):  # at the limit, an association may be refused
            tally.responses["connection lost"] += 1


def converse(stream: socket.socket, conversation: Conversation, tally: Tally) -> Counter[str]:
    """One connection, to its end."""
    connection, responses = wire.RawConnection(0, ENDS_WITHIN_S, stream), Counter[str]()
    if conversation.waits_for_responses:
        connection.associate()
        responses["accepted"] += 1
        for message in conversation.messages:
            connection.send(message)
            tally.messages += 1
            stream.settimeout(RESPONSE_WITHIN_S)
            try:
                response = connection.status()
            except TimeoutError:
                responses["no response"] += 1
                break
            responses[f"{response:04X}" if isinstance(response, int) else response] += 1
            if not isinstance(response, int):
                return responses
    else:
        messages = conversation.messages
        if messages[0] == ORDINARY:  # PDUs sent before the acceptance would only cause an abort
            connection.associate()
            responses["accepted"] += 1
            messages = messages[1:]
        connection.send(b"".join(messages))
        tally.messages += len(messages)
    stream.settimeout(ENDS_WITHIN_S)
    stream.shutdown(socket.SHUT_WR)
    while (response := connection.status()) != "closed":
        responses[f"{response:04X}" if isinstance(response, int) else response] += 1
    responses["closed"] += 1
    return responses


def echo_repeatedly(address: tuple[str, int], tally: Tally, stop: threading.Event) -> None:
    """Sends a legitimate C-ECHO at intervals, from another process."""
    while True:
        started_at = time.monotonic()
        command = [
            "echoscu",
            "-aec",
            "LUMBAR",
            "-to",
            "10",
            "-ta",
            "10",
            "-td",
            "10",
            address[0],
            str(address[1]),
        ]
        succeeded = subprocess.run(command, capture_output=True).returncode == 0
        tally.echoes.append(time.monotonic() - started_at if succeeded else float("inf"))
        if stop.wait(ECHO_EVERY_S):
            return


def run(
    address: tuple[str, int],
    seed: int,
    count: int,
    connections_at_once: int,
    console: Console | None = None,
) -> Tally:
    """Fuzzes with so many connections at once, and sends C-ECHOs meanwhile; fails if anything hangs."""
    tally, stop = Tally(), threading.Event()
    echoing = threading.Thread(target=echo_repeatedly, args=(address, tally, stop))
    echoing.start()
    tallies = [Tally() for _ in range(connections_at_once)]
    threads = [
        threading.Thread(
            target=fuzz, args=(address, seed * 1000 + n, count // connections_at_once, tallies[n])
        )
        for n in range(connections_at_once)
    ]
    for thread in threads:
        thread.start()
    started_at = time.monotonic()
    for thread in threads:
        while thread.is_alive():
            thread.join(10)
            if console:
                sent, elapsed_s = (
                    sum(part.messages for part in tallies),
                    time.monotonic() - started_at,
                )
                console.print(
                    f"{elapsed_s:6.0f} s  {sent:,} messages, {sent / elapsed_s:.0f} a second"
                )
    stop.set()
    echoing.join()
    for part in tallies:
        tally.add(part)
    assert max(tally.echoes) <= ECHO_WITHIN_S, f"a C-ECHO took {max(tally.echoes):.1f} s"
    assert tally.hung == 0, f"{tally.hung} connections did not end"
    return tally


def table_of(tally: Tally, title: str) -> Table:
    table = Table("", "count", title=title, title_justify="left")
    table.add_row("messages sent", f"{tally.messages:,}")
    table.add_row("connections", f"{tally.connections:,}")
    for response, number in tally.responses.most_common():
        table.add_row(response, f"{number:,}")
    table.add_row("slowest legitimate C-ECHO", f"{max(tally.echoes):.2f} s of {len(tally.echoes)}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzzer", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000, help="messages")
    parser.add_argument("--connections", type=int, default=8, help="at once")
    parser.add_argument(
        "--to", metavar="HOST:PORT", help="a receiver that runs already; without, one is started"
    )
    options = parser.parse_args()
    console, started_at = Console(stderr=True, highlight=False), time.monotonic()
    monitored = None
    try:
        if options.to:
            host, _, port = options.to.rpartition(":")
            address = (host, int(port))
        else:
            monitored = MonitoredSystem(
                Path(tempfile.mkdtemp(prefix="lumbar-fuzz-")), {"LUMBAR_NETWORK_TIMEOUT_S": "5"}
            )
            monitored.start()
            address = ("127.0.0.1", monitored.port)
        tally = run(address, options.seed, options.count, options.connections, console)
        if monitored:
            monitored.require_unharmed()
    except AssertionError as error:
        console.print(
            f"violated: {error}" + (f"; the log is {monitored.system.log}" if monitored else "")
        )
        return 1
    finally:
        if monitored:
            monitored.stop()
    elapsed_s = time.monotonic() - started_at
    Console().print(
        table_of(
            tally,
            f"seed {options.seed}, {elapsed_s:.0f} s, 0 hangs"
            + (", 0 deaths" if monitored else ""),
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
