"""Damaged PDUs and DIMSE messages by the thousand: ``python -m tests.hostile.fuzzer --seed 1 --count 100000``.

Raw sockets send mutations of valid messages, several on one connection, while another process asks by C-ECHO every few
seconds whether a legitimate peer is still answered within two seconds.
"""

import argparse
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tests.hostile import wire
from tests.hostile.datasets import encoded, uid_of
from tests.hostile.watched import Watched

ECHO_WITHIN_S = 2.0
ASK_EVERY_S = 3.0
READ_WITHIN_S = 0.05  # of a message that gets no answer


@dataclass
class Tally:
    """What was sent, and how it ended."""

    messages: int = 0
    connections: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    echoes: list[float] = field(default_factory=list)  # seconds each


def valid_messages() -> list[bytes]:
    """One of each kind that a peer may send."""
    uid = uid_of("fuzzed")
    return [
        wire.associate_rq(),
        wire.echo_rq(),
        b"".join(wire.store_rq(uid, encoded(uid))),
        wire.pdu(wire.RELEASE_RQ, bytes(4)),
        wire.pdu(wire.ABORT, bytes(4)),
        wire.pdu(wire.RELEASE_RP, bytes(4)),
        wire.pdu(wire.ASSOCIATE_AC, wire.associate_rq()[6:]),
    ]


def mutated(message: bytes, valid: list[bytes], chance: random.Random) -> bytes:
    """One to three changes: bits, lengths, cuts, repeats, splices, or nothing like a PDU at all."""
    content = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content)) if content else 0
        match chance.randrange(8):
            case 0 if content:
                content[at] ^= 1 << chance.randrange(8)
            case 1 if content:
                content[at] = chance.randrange(256)
            case 2:
                del content[at:]
            case 3:
                content[at:at] = content[at : at + chance.randrange(1, 64)]
            case 4:
                other = chance.choice(valid)
                content = content[:at] + other[chance.randrange(len(other)) :]
            case 5 if len(content) > 6:  # the PDU's length lies
                content[2:6] = chance.choice([0, 1, len(content), 2**16, 2**31, 2**32 - 1]).to_bytes(4, "big")
            case 6 if len(content) > 12:  # a PDV's header
                content[6:12] = chance.randbytes(6)
            case _:
                content += chance.randbytes(chance.randrange(1, 64))
    return bytes(content)


def connections(seed: int, count: int) -> Iterator[list[bytes]]:
    """What each connection sends: some begin with a good association request, some do not."""
    chance, valid, made = random.Random(seed), valid_messages(), 0
    while made < count:
        messages = [valid[0]] if chance.random() < 0.8 else []
        for _ in range(min(chance.randint(1, 12), count - made)):
            message = chance.choice(valid)
            messages.append(mutated(message, valid, chance) if chance.random() < 0.7 else message)
            made += 1
        yield messages


def fuzz(port: int, seed: int, count: int, tally: Tally) -> None:
    """Sends so many messages; what the receiver does to it is counted, and never an error."""
    for messages in connections(seed, count):
        tally.connections += 1
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
                line.settimeout(READ_WITHIN_S)
                ending = "silence"
                for message in messages:
                    line.sendall(message)
                    tally.messages += 1
                    try:
                        answer = line.recv(65536)
                        ending = "answered" if answer[:1] in (b"\2", b"\4", b"\6") else "refused"
                        if answer[:1] in (b"", b"\3", b"\7"):
                            break
                    except TimeoutError:
                        ending = "silence"
                tally.endings[ending] += 1
        except OSError:
            tally.endings["hung up on"] += 1


def ask(port: int, tally: Tally, stop: threading.Event) -> None:
    """A legitimate C-ECHO now and then."""
    while not stop.wait(ASK_EVERY_S):
        tally.echoes.append(wire.echo_s(port))


def run(watched: Watched, seed: int, count: int, *, lines: int = 4, console: Console | None = None) -> Tally:
    """Fuzzes with so many connections at once, and asks meanwhile. Raises AssertionError for a hang, death or harm."""
    tally, stop = Tally(), threading.Event()
    asking = threading.Thread(target=ask, args=(watched.port, tally, stop))
    asking.start()
    share = [Tally() for _ in range(lines)]
    threads = [
        threading.Thread(target=fuzz, args=(watched.port, seed * 1000 + n, count // lines, share[n]))
        for n in range(lines)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for thread in threads:
        while thread.is_alive():
            thread.join(10)
            if console:
                sent = sum(one.messages for one in share)
                console.print(f"{time.monotonic() - began:6.0f} s  {sent:,} messages")
    stop.set()
    asking.join()
    for one in share:
        tally.messages += one.messages
        tally.connections += one.connections
        tally.endings += one.endings
    tally.echoes.append(wire.echo_s(watched.port))
    assert max(tally.echoes) <= ECHO_WITHIN_S, f"a C-ECHO took {max(tally.echoes):.1f} s"
    watched.require_unharmed()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzzer", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000, help="messages")
    asked = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    watched = Watched(Path(tempfile.mkdtemp(prefix="lumbar-fuzz-")), {"LUMBAR_NETWORK_TIMEOUT_S": "5"})
    watched.start()
    try:
        tally = run(watched, asked.seed, asked.count, console=console)
    except AssertionError as error:
        console.print(f"violated: {error}; the log is {watched.system.log}")
        return 1
    finally:
        watched.stop()
    endings = ", ".join(f"{count:,} {ending}" for ending, count in tally.endings.most_common())
    Console().print(
        f"{tally.messages:,} messages on {tally.connections:,} connections ({endings}); 0 hangs, 0 deaths; "
        f"slowest of {len(tally.echoes)} C-ECHOs {max(tally.echoes):.2f} s; "
        f"{watched.peak_above / 2**20:.0f} MiB above idle"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
