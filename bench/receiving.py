"""Images received per second, beside Orthanc and storescp: ``python -m bench.receiving``.

DCMTK's ``dcmsend`` sends 300 kB images over 1, 4 and 16 associations at once, with TCP_NODELAY set
everywhere, to each receiver in turn, some rounds over. Ours answers once the file is durable, and
writes the rows behind it; "registered" is the rate until the last row is written. During the 16
associations C-ECHOs measure how long a further peer waits.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from db.models import Instance
from tests.factories.instances import make_slice
from tests.peers import Orthanc, Storescp
from tests.servers import Postgres
from tests.system import System, closing_database, wait_until

SIDE = 387  # pixels; 2 bytes each: 300 kB
ECHO_PAUSE_S = 0.05  # between two C-ECHOs, so that they measure the load and are not the load
DCMSEND = ("dcmsend", "+sd", "-aec")  # +sd: a folder's files
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


@dataclass
class Receiver:
    """One that is measured; the rates are images per second, by the number of associations."""

    name: str
    port: int
    ae_title: str
    registered: Callable[[], int] | None = None  # images that have rows
    memory: Callable[[], int] | None = None  # bytes of its processes together
    rates: dict[int, list[float]] = field(default_factory=dict)
    registering: dict[int, list[float]] = field(default_factory=dict)
    echo_s: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=400, help="per round and measurement")
    parser.add_argument("--associations", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--only", nargs="*", help="parts of receivers' names")
    arguments = parser.parse_args()
    console = Console()
    with TemporaryDirectory(prefix="lumbar-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        receivers = [
            stack.enter_context(start(folder / f"receiver-{number}"))
            for number, (label, start) in enumerate(RECEIVERS.items())
            if not arguments.only or any(part in label for part in arguments.only)
        ]
        for round_number in range(arguments.rounds):
            for associations in arguments.associations:
                sent = folder / "sent"
                queues = make_images(sent, associations, arguments.images)
                for receiver in receivers:
                    console.print(f"round {round_number + 1}, {associations}: {receiver.name}")
                    measure(receiver, queues, arguments.images)
                shutil.rmtree(sent)
        show(console, receivers, arguments.associations)


def make_images(folder: Path, associations: int, images: int) -> list[list[Path]]:
    """New images, as many for each association."""
    rng = np.random.default_rng(time.time_ns())
    study, queues = int(rng.integers(1, 2**31)), []
    pixels = rng.integers(0, 1000, (SIDE, SIDE), np.uint16).tobytes()
    for association in range(associations):
        queue = folder / str(association)
        queue.mkdir(parents=True)
        for number in range(1, images // associations + 1):
            ds = make_slice(study + association, 1, number, Rows=SIDE, Columns=SIDE)
            ds.PixelData = pixels[number * 2 :] + pixels[: number * 2]
            ds.save_as(queue / f"{number}.dcm", enforce_file_format=True)
        queues.append(sorted(queue.iterdir()))
    return queues


def measure(receiver: Receiver, queues: list[list[Path]], images: int) -> None:
    """Sends all queues at once."""
    before = receiver.registered() if receiver.registered else 0
    sent = sum(map(len, queues))
    began = time.monotonic()
    senders = [
        subprocess.Popen(
            [*DCMSEND, receiver.ae_title, "127.0.0.1", str(receiver.port), str(queue[0].parent)],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
        )
        for queue in queues
    ]
    while len(queues) == 16 and any(sender.poll() is None for sender in senders):
        receiver.echo_s.append(echo(receiver))
        time.sleep(ECHO_PAUSE_S)
    if any(sender.wait() for sender in senders):
        sys.exit(f"{receiver.name} refused an image")
    receiver.rates.setdefault(len(queues), []).append(sent / (time.monotonic() - began))
    if receiver.registered:
        wait_until(lambda: receiver.registered() == before + sent, 600, lambda: "not registered")
        receiver.registering.setdefault(len(queues), []).append(sent / (time.monotonic() - began))


def echo(receiver: Receiver) -> float:
    """Seconds that a C-ECHO takes, its association and process included."""
    began = time.monotonic()
    command = ["echoscu", "-aec", receiver.ae_title, "127.0.0.1", str(receiver.port)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    return time.monotonic() - began


@contextmanager
def ours(folder: Path, name: str, **settings: str) -> Iterator[Receiver]:
    """`lumbar scp` as a user starts it."""
    system = System(folder, {"LUMBAR_NETWORK_TIMEOUT_S": "60", **settings}, stubbed=False)
    assert system.lumbar("db", "upgrade").returncode == 0
    try:
        (scp,) = system.start("scp")

        def registered() -> int:
            with closing_database(system.database_url) as database, database.reading() as session:
                return session.scalar(select(func.count()).select_from(Instance)) or 0

        yield Receiver(name, system.port, "LUMBAR", registered, lambda: memory_of_group(scp.pid))
    finally:
        system.kill()


def memory_of_group(leader: int) -> int:
    """Proportional set size of all processes of a process group, in bytes."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == leader:
                rollup = (folder / "smaps_rollup").read_text()
                total += 1024 * int(rollup.split("Pss:")[1].split()[0])
        except (OSError, IndexError):
            continue
    return total


@contextmanager
def orthanc(folder: Path, name: str, sync: bool) -> Iterator[Receiver]:
    with Orthanc(folder, SyncStorageArea=sync) as peer:
        yield Receiver(name, peer.dicom_port, peer.ae_title)


@contextmanager
def storescp(folder: Path, name: str) -> Iterator[Receiver]:
    with Storescp(folder) as peer:
        yield Receiver(name, peer.dicom_port, peer.ae_title)


@contextmanager
def ours_on_postgresql(folder: Path, name: str) -> Iterator[Receiver]:
    with (
        Postgres(folder / "postgresql") as postgres,
        ours(folder, name, LUMBAR_DATABASE_URL=postgres.new_database()) as receiver,
    ):
        yield receiver


RECEIVERS: dict[str, Callable[[Path], "contextmanager[Receiver]"]] = {}


def show(console: Console, receivers: list[Receiver], associations: list[int]) -> None:
    """The medians, and what they are as a multiple of Orthanc's with fsync."""
    reference = next((r for r in receivers if r.name == "Orthanc, fsync"), None)
    table = Table("receiver", *(f"{count} associations" for count in associations))
    for receiver in receivers:
        cells = []
        for count in associations:
            rate = median(receiver.rates[count])
            cell = f"{rate:.0f}/s"
            if reference:
                cell += f"  ×{rate / median(reference.rates[count]):.2f}"
            if receiver.registering:
                cell += f"  registered {median(receiver.registering[count]):.0f}/s"
            cells.append(cell)
        table.add_row(receiver.name, *cells)
    console.print(table)
    for receiver in receivers:
        if len(receiver.echo_s) > 1:
            p99 = quantiles(receiver.echo_s, n=100)[98]
            console.print(f"C-ECHO beside 16 associations, p99: {p99:.2f} s, {receiver.name}")
        if receiver.memory:
            console.print(f"memory: {receiver.memory() / 2**20:.0f} MiB, {receiver.name}")


RECEIVERS |= {
    "Orthanc, fsync": lambda folder: orthanc(folder, "Orthanc, fsync", sync=True),
    "Orthanc, no fsync": lambda folder: orthanc(folder, "Orthanc, no fsync", sync=False),
    "storescp, no fsync": lambda folder: storescp(folder, "storescp, no fsync"),
    "ours, SQLite": lambda folder: ours(folder, "ours, SQLite"),
    "ours, PostgreSQL": lambda folder: ours_on_postgresql(folder, "ours, PostgreSQL"),
}


if __name__ == "__main__":
    main()
