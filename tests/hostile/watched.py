"""A running system under watch: what must still be true of it whatever was sent."""

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
    "job.fault",
    "job.abandoned",
    "thread.fault",
    "process.fault",
    "object.fault",
}
IN_STORE = re.compile(r"incoming/[0-9a-f]{32}/lock")


class Watched:
    """A system started in ``folder / "here" / "system"``, so that paths that climb out of it end in ``folder``."""

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
        self.store_a_good_instance()  # the children that parse are there now
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
        line = wire.Line(self.port, timeout_s=30)
        try:
            offered = abstract if isinstance(abstract, str) else wire.MR
            line.associate(wire.associate_rq(((wire.IMAGE, offered, (syntax,)),)))
            line.send(*wire.store_rq(uid, dataset, abstract=abstract))
            return line.status()
        finally:
            line.close()

    def store_all(self, sent: Iterable[tuple[bytes, bytes, str]]) -> None:
        """Stores datasets, each with its UID and transfer syntax, on one association."""
        sent = list(sent)
        contexts = {
            syntax: 2 * n + 1
            for n, syntax in enumerate(dict.fromkeys(syntax for _, _, syntax in sent))
        }
        line = wire.Line(self.port, timeout_s=30)
        line.associate(
            wire.associate_rq([(number, wire.MR, (syntax,)) for syntax, number in contexts.items()])
        )
        for dataset, uid, syntax in sent:
            line.send(*wire.store_rq(uid, dataset, contexts[syntax]))
            answer = line.status()
            assert answer == 0x0000, answer
        line.close()

    def wait_for_event(self, start: int, event: str, why: str) -> None:
        """Until the log, from this place on, holds an event whose name and ``why`` match wholly."""

        def said() -> bool:
            found = self.events(start)
            return any(
                re.fullmatch(event, e.get("event", "")) and re.fullmatch(why, e.get("why", ""))
                for e in found
            )

        wait_until(said, 10, lambda: f"no {event} with {why!r} in:\n{self._text(start)}")

    def events(self, start: int = 0) -> list[dict[str, str]]:
        """The log's events since a place in it, as the fields of each."""
        return [fields(line) for line in self._text(start).split("\n") if line]

    def require_unharmed(self) -> None:
        """Everything that hostile input must leave as it was."""
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
        """Bytes above idle, at the most so far."""
        return self.peak - self._idle

    def require_nothing_outside_the_store(self) -> None:
        store = self.system.folder / "home" / "store"
        known = {self.system.log, *(self.system.folder / "home").glob("lumbar.sqlite*")}
        elsewhere = [
            p
            for p in self.folder.rglob("*")
            if p.is_file() and p not in known and store not in p.parents
        ]
        assert elsewhere == []

        def strange() -> list[str]:
            names = [p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()]
            return [
                name
                for name in names
                if not STORED_FILE.fullmatch(name) and not IN_STORE.fullmatch(name)
            ]

        wait_until(lambda: not strange(), 20, lambda: f"left behind: {strange()}")

    def require_a_clean_log(self) -> None:
        text = self._text(0)
        assert "Traceback" not in text
        odd = [
            line
            for line in text.split("\n")
            if line and (CONTROL.search(line) or not LINE.fullmatch(line))
        ]
        assert odd == [], "\n".join(odd)
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
        """Bytes that all its processes hold, shared ones counted once (PSS)."""
        return sum(_resident(pid) for pid in descendants(*self.system.parts().values()))


def report(figure: str) -> None:
    """Prints a figure that a run has measured (``make hostile`` shows it)."""
    sys.stdout.write(f"\n{figure}\n")


def fields(line: str) -> dict[str, str]:
    """A logfmt line's fields."""
    found = {}
    for name, value in PAIR.findall(line):
        found[name] = value[1:-1].replace('\\"', '"') if value.startswith('"') else value
    return found


def descendants(*roots: int) -> list[int]:
    """These processes, and all that they started."""
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                waiting += map(int, children.read_text().split())
    return found


def _resident(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n"):
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
