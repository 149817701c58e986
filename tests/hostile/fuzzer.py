"""Damaged PDUs and DIMSE messages by the thousand: ``python -m tests.hostile.fuzzer --seed 1 --count 100000``.

Raw sockets send them, several messages on one connection, while another process asks by C-ECHO every few seconds whether
a legitimate peer is still answered within two. Every connection must come to its end once we have hung up.
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
from tests.hostile.mutations import Talk, talks
from tests.hostile.watched import Watched

ORDINARY = wire.associate_rq()
ECHO_WITHIN_S = 2.0
ASK_EVERY_S = 3.0
ANSWER_WITHIN_S = 0.25  # some damaged messages rightly get none
ENDS_WITHIN_S = 20.0


@dataclass
class Tally:
    """What was sent, and what came of it."""

    messages: int = 0
    connections: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # statuses, and what else a PDU said
    hung: int = 0  # connections that did not end
    echoes: list[float] = field(default_factory=list)  # seconds each

    def add(self, other: "Tally") -> None:
        self.messages += other.messages
        self.connections += other.connections
        self.answers += other.answers
        self.hung += other.hung


def fuzz(address: tuple[str, int], seed: int, count: int, tally: Tally) -> None:
    """Sends so many messages; what the receiver does about them is counted, and never an error."""
    for talk in talks(seed):
        if tally.messages >= count:
            return
        tally.connections += 1
        try:
            with socket.create_connection(address, timeout=ENDS_WITHIN_S) as stream:
                tally.answers += converse(stream, talk, tally)
        except TimeoutError:
            tally.hung += 1
        except (OSError, AssertionError):  # with all places taken, an association may be refused
            tally.answers["hung up on"] += 1


def converse(stream: socket.socket, talk: Talk, tally: Tally) -> Counter[str]:
    """One connection, to its end."""
    line, heard = wire.Line(0, ENDS_WITHIN_S, stream), Counter[str]()
    if talk.waits:
        line.associate()
        heard["accepted"] += 1
        for message in talk.messages:
            line.send(message)
            tally.messages += 1
            stream.settimeout(ANSWER_WITHIN_S)
            try:
                answer = line.status()
            except TimeoutError:
                heard["no answer"] += 1
                break
            heard[f"{answer:04X}" if isinstance(answer, int) else answer] += 1
            if not isinstance(answer, int):
                return heard
    else:
        messages = talk.messages
        if messages[0] == ORDINARY:  # what follows it too soon is an abort, whatever it is
            line.associate()
            heard["accepted"] += 1
            messages = messages[1:]
        line.send(b"".join(messages))
        tally.messages += len(messages)
    stream.settimeout(ENDS_WITHIN_S)
    stream.shutdown(socket.SHUT_WR)
    while (answer := line.status()) != "closed":
        heard[f"{answer:04X}" if isinstance(answer, int) else answer] += 1
    heard["closed"] += 1
    return heard


def ask(address: tuple[str, int], tally: Tally, stop: threading.Event) -> None:
    """A legitimate C-ECHO now and then, by another process."""
    while True:
        began = time.monotonic()
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
        answered = subprocess.run(command, capture_output=True).returncode == 0
        tally.echoes.append(time.monotonic() - began if answered else float("inf"))
        if stop.wait(ASK_EVERY_S):
            return


def run(
    address: tuple[str, int], seed: int, count: int, lines: int, console: Console | None = None
) -> Tally:
    """Fuzzes with so many connections at once, and asks meanwhile. Raises AssertionError where something hangs."""
    tally, stop = Tally(), threading.Event()
    asking = threading.Thread(target=ask, args=(address, tally, stop))
    asking.start()
    share = [Tally() for _ in range(lines)]
    threads = [
        threading.Thread(target=fuzz, args=(address, seed * 1000 + n, count // lines, share[n]))
        for n in range(lines)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for thread in threads:
        while thread.is_alive():
            thread.join(10)
            if console:
                sent, taken = sum(one.messages for one in share), time.monotonic() - began
                console.print(f"{taken:6.0f} s  {sent:,} messages, {sent / taken:.0f} a second")
    stop.set()
    asking.join()
    for one in share:
        tally.add(one)
    assert max(tally.echoes) <= ECHO_WITHIN_S, f"a C-ECHO took {max(tally.echoes):.1f} s"
    assert tally.hung == 0, f"{tally.hung} connections did not end"
    return tally


def table_of(tally: Tally, title: str) -> Table:
    table = Table("", "count", title=title, title_justify="left")
    table.add_row("messages sent", f"{tally.messages:,}")
    table.add_row("connections", f"{tally.connections:,}")
    for answer, number in tally.answers.most_common():
        table.add_row(answer, f"{number:,}")
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
    asked = parser.parse_args()
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    watched = None
    try:
        if asked.to:
            host, _, port = asked.to.rpartition(":")
            address = (host, int(port))
        else:
            watched = Watched(
                Path(tempfile.mkdtemp(prefix="lumbar-fuzz-")), {"LUMBAR_NETWORK_TIMEOUT_S": "5"}
            )
            watched.start()
            address = ("127.0.0.1", watched.port)
        tally = run(address, asked.seed, asked.count, asked.connections, console)
        if watched:
            watched.require_unharmed()
    except AssertionError as error:
        console.print(
            f"violated: {error}" + (f"; the log is {watched.system.log}" if watched else "")
        )
        return 1
    finally:
        if watched:
            watched.stop()
    taken = time.monotonic() - began
    Console().print(
        table_of(
            tally, f"seed {asked.seed}, {taken:.0f} s, 0 hangs" + (", 0 deaths" if watched else "")
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
