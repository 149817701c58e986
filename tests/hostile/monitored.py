"""A running system, and the checks that must hold whatever was sent to it."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path

from tests.hostile import wire
from tests.hostile.datasets import encoded, uid_of
from tests.system import System, wait_until

MEMORY_ALLOWED = 512 * 2**20  # bytes above idle, of all processes together
LINE = re.compile(r'[a-z_]+=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: [a-z_]+=("(?:[^"\\]|\\.)*"|[^\s"=]*))*')
PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=]*)')
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
STORED_FILE = re.compile(r"(instances|reports)/[0-9a-f]{2}/[0-9a-f]{64}\.dcm")
FAULTS = {
    "receiver.fault",
    "registration.fault",
    "job.fault",
    "job.abandoned",
    "thread.fault",
    "process.fault",
    "object.fault",
}
IN_STORE = re.compile(
    r"lumbar-store|arrived/[0-9a-f]{32}/(owner|registrar)"
    r"|quarantined/[0-9.]+_[0-9]+_[0-9a-f]{40}\.dcm"
)


class MonitoredSystem:
    """A system started in ``folder / "here" / "system"``, so that a path out of it ends in ``folder``."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.system = System(
            folder / "here" / "system", {"LUMBAR_QUIET_INCOMPLETE_S": "1", **settings}
        )
        self._sent = count(1)

    def start(self) -> None:
        self.system.start()
        wait_until(lambda: "sweep.started" in self.system.tail(), 30, self.system.tail)
        self._pids = self.system.parts()
        self.store_a_good_instance()  # the child processes that parse are running now
        self._idle = self.memory()
        self.peak = 0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def stop(self) -> None:
        self._ended.set()
        self._sampler.join()
        self.system.kill()

    @property
    def port(self) -> int:
        return self.system.port

    def store_a_good_instance(self) -> None:
        uid = uid_of(f"good {next(self._sent)} of {self.folder}")
        assert self.store(encoded(uid), uid) == 0x0000

    def store(
        self,
        dataset: bytes,
        uid: bytes,
        syntax: str = wire.EXPLICIT,
        abstract: str | bytes = wire.MR,
    ) -> int | str:
        """The status a C-STORE is answered with, or how the association ended instead."""
        connection = wire.RawConnection(self.port, timeout_s=30)
        try:
            offered = abstract if isinstance(abstract, str) else wire.MR
            connection.associate(wire.associate_rq(((wire.IMAGE, offered, (syntax,)),)))
            connection.send(*wire.store_rq(uid, dataset, abstract=abstract))
            return connection.status()
        finally:
            connection.close()

    def store_all(self, sent: Iterable[tuple[bytes, bytes, str]]) -> None:
        """Stores datasets, each with its UID and transfer syntax, on one association."""
        datasets = list(sent)
        contexts = {
            syntax: 2 * n + 1
            for n, syntax in enumerate(dict.fromkeys(syntax for _, _, syntax in datasets))
        }
        connection = wire.RawConnection(self.port, timeout_s=30)
        connection.associate(
            wire.associate_rq([(number, wire.MR, (syntax,)) for syntax, number in contexts.items()])
        )
        for dataset, uid, syntax in datasets:
            connection.send(*wire.store_rq(uid, dataset, contexts[syntax]))
            status = connection.status()
            assert status == 0x0000, status
        connection.close()

    def wait_for_event(self, start: int, event: str, reason: str) -> None:
        """Waits until the log, from ``start`` on, has an event whose name and ``why`` field match in full."""

        def logged() -> bool:
            return any(
                re.fullmatch(event, e.get("event", "")) and re.fullmatch(reason, e.get("why", ""))
                for e in self.events(start)
            )

        wait_until(logged, 10, lambda: f"no {event} with {reason!r} in:\n{self._text(start)}")

    def events(self, start: int = 0) -> list[dict[str, str]]:
        """The events logged from the byte ``start`` on, as their fields."""
        return [fields(line) for line in self._text(start).split("\n") if line]

    def require_unharmed(self) -> None:
        """Checks everything that hostile input must leave as it was."""
        assert (
            subprocess.run(["echoscu", "-aec", "LUMBAR", "127.0.0.1", str(self.port)]).returncode
            == 0
        )
        self.store_a_good_instance()
        assert self.system.parts() == self._pids, "a process died"
        self.require_nothing_outside_the_store()
        self.require_a_clean_log()
        above = self.peak_above
        report(
            f"memory: {self._idle / 2**20:.0f} MiB idle, at most {above / 2**20:.0f} MiB above that"
        )
        assert above <= MEMORY_ALLOWED, f"{above / 2**20:.0f} MiB above idle"

    @property
    def peak_above(self) -> int:
        """The peak so far, in bytes above idle."""
        return self.peak - self._idle

    def require_nothing_outside_the_store(self) -> None:
        home = self.system.folder / "home"
        store = home / "store"
        ours = {home / "disk-reserve", home / "instance-id"}  # nothing of a sender's is in them
        expected_files = {self.system.log, *home.glob("lumbar.sqlite*"), *ours}
        outside = [
            p
            for p in self.folder.rglob("*")
            if p.is_file() and p not in expected_files and store not in p.parents
        ]
        assert outside == []

        def unexpected() -> list[str]:
            names = [p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()]
            return [
                name
                for name in names
                if not STORED_FILE.fullmatch(name) and not IN_STORE.fullmatch(name)
            ]

        wait_until(lambda: not unexpected(), 20, lambda: f"left behind: {unexpected()}")

    def require_a_clean_log(self) -> None:
        text = self._text(0)
        assert "Traceback" not in text
        malformed = [
            line
            for line in text.split("\n")
            if line and (CONTROL.search(line) or not LINE.fullmatch(line))
        ]
        assert malformed == [], "\n".join(malformed)
        faults = [e for e in self.events() if e["event"] in FAULTS]
        assert not faults, faults

    def _text(self, start: int) -> str:
        with self.system.log.open("rb") as log:
            log.seek(start)
            return log.read().decode()

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            self.peak = max(self.peak, self.memory())

    def memory(self) -> int:
        """Bytes in use by all its processes, with shared memory counted once (PSS)."""
        return sum(_resident(pid) for pid in descendants(*self.system.parts().values()))


def report(figure: str) -> None:
    """Prints a measured figure, which ``make hostile`` shows."""
    sys.stdout.write(f"\n{figure}\n")


def fields(line: str) -> dict[str, str]:
    """A logfmt line's fields."""
    values = {}
    for name, value in PAIR.findall(line):
        values[name] = value[1:-1].replace('\\"', '"') if value.startswith('"') else value
    return values


def descendants(*roots: int) -> list[int]:
    """These processes and all their descendants."""
    pids, pending = [], list(roots)
    while pending:
        pid = pending.pop()
        pids.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                pending += map(int, children.read_text().split())
    return pids


def _resident(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n"):
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
