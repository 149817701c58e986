"""Runs a planned week: `lumbar up` with its servers, the senders, and the faults in their time."""

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import Redis
from tests.system import System
from tests.week.faults import possible_faults
from tests.week.plan import SENDERS, Kind, Week
from tests.week.sending import Item, Sender
from tests.week.servers import Clock, FailingPostgres, RecordingOrthanc, SmallDisk
from tests.week.studies import StudyFiles, make_files

WORKLIST_DAYS, KEEP_DAYS, KEEP_AT_LEAST_DAYS = 2.0, 3.0, 1.0  # of the compressed week
DISK_MIB = 96  # the reports of 300 studies alone are about 40
REGISTERED_S = 3.0  # at most, until images have rows before the worklist is looked at
STANDSTILL_S = 60.0  # after the week nothing has changed for so long: it will not any more
SETTLE_S = 1200.0  # at most, after the week


@dataclass
class Happened:
    """What was seen while the week ran."""

    events: list[tuple[float, str]] = field(default_factory=list)  # day, what
    store_mib: list[tuple[float, float]] = field(default_factory=list)  # day, size of the images
    worklists: list[tuple[float, dict[str, str]]] = field(default_factory=list)  # day, UID → row
    ended_by_itself: int = 0  # times that `lumbar up` ended, and was started again
    restored_on: float = 0.0  # day on which the database was restored
    refused: int = 0  # associations


class Hospital:
    """The system, its peers and its studies.

    ``day_s``: how many seconds a day takes. ``database``: ``postgresql``, with Redis as the broker,
    or ``sqlite``, without one.
    """

    def __init__(
        self,
        folder: Path,
        week: Week,
        day_s: float,
        database: str = "postgresql",
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.week, self.day_s, self._progress = week, day_s, progress
        self._folder, self._database = folder, database
        self.happened = Happened()
        self.studies = [make_files(folder / "sent" / str(s.number), s) for s in week.studies]
        self.clock = Clock(folder / "clock")
        self.archives = {name: RecordingOrthanc(folder / name) for name in ("pacs", "archive")}
        self.disk = SmallDisk(folder / "system" / "home", DISK_MIB)
        self._servers = ExitStack()
        self._servers.callback(self.disk.close)
        self.redis: Redis | None = None
        self.postgres: FailingPostgres | None = None
        self.began = 0.0

    def __enter__(self) -> "Hospital":
        try:
            for archive in self.archives.values():
                self._servers.enter_context(archive)
            settings = self._settings()
            if self._database == "postgresql":
                self.redis = self._servers.enter_context(Redis(self._folder / "redis"))
                postgres = FailingPostgres(self._folder / "postgres", self.clock)
                self.postgres = self._servers.enter_context(postgres)
                settings["LUMBAR_DATABASE_URL"] = self.postgres.new_database()
                settings["LUMBAR_BROKER_URL"] = self.redis.url
            self.system = System(self._folder / "system", settings)
            self._servers.callback(self.system.kill)
            (self._up,) = self.system.start()
        except BaseException:
            self._servers.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def _settings(self) -> dict[str, str]:
        day = self.day_s / 86400
        pacs, archive = self.archives["pacs"], self.archives["archive"]
        destinations = {
            "pacs": f"dicom://{pacs.ae_title}@127.0.0.1:{pacs.dicom_port}",
            "archive": archive.dicomweb.url,
        }
        return self.clock.variables | {
            "TESTS_READING": "every-image",
            "LUMBAR_DESTINATIONS": json.dumps(destinations),
            "LUMBAR_CORRECTION_SOURCES": "PACS",
            "LUMBAR_REJECTION_SOURCES": "PACS",
            "LUMBAR_QUIET_S": "1",
            "LUMBAR_QUIET_INCOMPLETE_S": "2",
            "LUMBAR_LEASE_S": "3",
            "LUMBAR_RETRY_BASE_S": "0.2",
            "LUMBAR_RETRY_LONGEST_S": f"{max(0.5, 900 * day):.2f}",
            "LUMBAR_WORKLIST_DAYS": f"{WORKLIST_DAYS * day:.6f}",
            "LUMBAR_KEEP_DAYS": f"{KEEP_DAYS * day:.6f}",
            "LUMBAR_KEEP_AT_LEAST_HOURS": f"{24 * KEEP_AT_LEAST_DAYS * day:.6f}",
        }

    @property
    def day(self) -> float:
        """Now, in days since the week's beginning."""
        return (time.monotonic() - self.began) / self.day_s

    def ended_before(self, day: float) -> list[StudyFiles]:
        """The studies of which neither anything has come since then, nor a report been stored."""
        ago_s = (self.day - day) * self.day_s
        recent = {
            study
            for archive in self.archives.values()
            for study, at in archive.newest.items()
            if at > time.time() - ago_s
        }
        before = [study for study in self.studies if self.day_of(study.last_at) < day]
        return [study for study in before if study.uid not in recent]

    def day_of(self, moment: float) -> float:
        """The day of a moment of the monotonic clock."""
        return (moment - self.began) / self.day_s

    def run(self) -> None:
        """The week, and after it until everything has settled, or the time for that is up."""
        self.began = time.monotonic()
        senders = self._senders()
        for sender in senders:
            sender.start()
        actions = sorted(self._actions(), key=lambda action: action[0])
        told = -1.0
        while actions or self.day < self.week.days:
            while actions and actions[0][0] <= self.day:
                _, what, act = actions.pop(0)
                self._note(what)
                act()
            self._look()
            if self.day - told > 0.5:
                told = self.day
                self._progress(self.state)
                self._look_at_worklist()
            self._pass(0.2)
        self._look_at_worklist()
        self._note("the week is over")
        self._settle(senders)
        for sender in senders:
            sender.stop()
        self.happened.refused = sum(sender.refused for sender in senders)

    @property
    def state(self) -> str:
        sent = sum(study.sent.is_set() for study in self.studies)
        size = self.happened.store_mib[-1][1] if self.happened.store_mib else 0
        stored = len(self.archives["pacs"].stored)
        studies = f"{sent} of {len(self.studies)} studies sent"
        return f"{studies}, {stored} reports in the PACS, {size:.1f} MiB of images"

    def _senders(self) -> list[Sender]:
        items: dict[str, list[Item]] = {f"MR{n}": [] for n in range(1, SENDERS + 1)} | {"PACS": []}
        for study in self.studies:
            first = Item(study.plan.at * self.day_s, study, lambda study=study: study.first)
            items[f"MR{study.plan.sender}"].append(first)
            if study.has_more:
                files = lambda study=study: self._again(study)  # noqa: E731
                again = Item(study.plan.again * self.day_s, study, files, again=True)
                items[study.again_from].append(again)
        return [Sender(title, self.system.port, some, self.began) for title, some in items.items()]

    def _again(self, study: StudyFiles) -> list[Path] | None:
        """What is sent later of a study; our own report only once the PACS has one."""
        if study.plan.kind is not Kind.RETURNED:
            return study.again
        try:
            reports = [r for r in self.archives["pacs"].reports() if r.study == study.uid]
            if not reports:
                return None
            (instance,) = self.archives["pacs"].post("/tools/lookup", reports[0].uid.encode())
            content = self.archives["pacs"].download(instance["Path"] + "/file")
        except OSError:  # the PACS is down
            return None
        file = study.first[0].with_name("returned.dcm")
        file.write_bytes(content)
        return [file]

    def _settle(self, senders: list[Sender]) -> None:
        ends, before, changed = time.monotonic() + SETTLE_S, None, time.monotonic()
        while time.monotonic() < ends:
            self._look()
            jobs = len(self.jobs("pending", "running"))
            sent = all(study.complete.is_set() for study in self.studies)
            if sent and not jobs and self._reported():
                self._note("everything has settled")
                break
            now = jobs, *(len(archive.stored) for archive in self.archives.values())
            if now != before:
                before, changed = now, time.monotonic()
                self._progress(f"{jobs} jobs are unfinished, {self.state}")
            if time.monotonic() - changed > STANDSTILL_S:
                self._note("not everything has settled, and nothing changes any more")
                break
            self._pass(2)
        self._look_at_worklist()

    def _pass(self, seconds: float) -> None:
        """Lets time pass, which is what a week consists of; less if the system ends."""
        with suppress(subprocess.TimeoutExpired):
            self._up.wait(seconds)

    def _reported(self) -> bool:
        """Whether every archive has as many reports' studies as were sent."""
        wanted = {study.uid for study in self.studies}
        return all(
            wanted <= {report.study for report in archive.reports()}
            for archive in self.archives.values()
        )

    def jobs(self, *states: str) -> list[dict[str, object]]:
        """The jobs in these states, as the command line lists them."""
        options = [word for state in states for word in ("--state", state)]
        return self._json("jobs", "list", *options)

    def _json(self, *command: str) -> list[dict[str, object]]:
        """What the command line prints; waits for a database that is away."""
        done = self.system.lumbar(*command, "--format", "json")
        while done.returncode == 1 and "database" in done.stderr:
            self._pass(1)
            done = self.system.lumbar(*command, "--format", "json")
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    def _look(self) -> None:
        """Starts the system again if it has ended, as a supervisor would; measures the store."""
        if self._up.poll() is not None:
            self.happened.ended_by_itself += 1
            self._note(f"the system ended by itself, with status {self._up.returncode}")
            self.system.kill()
            self._start()
        files = (self.disk.folder / "store" / "instances").rglob("*")
        size = 0
        for file in files:
            try:
                size += file.stat().st_size
            except FileNotFoundError:
                continue
        self.happened.store_mib.append((self.day, size / 2**20))

    def _look_at_worklist(self) -> None:
        """Notes what is listed, once all that has arrived by now is registered, if that is soon."""
        day, ends = self.day, time.monotonic() + REGISTERED_S
        while self._waiting_for_rows() != 0:
            if time.monotonic() > ends:
                return
            self._pass(0.2)
        done = self.system.lumbar("worklist", "--format", "json")
        if done.returncode == 0:  # else the database is away
            rows = json.loads(done.stdout)
            listed = {row["study_instance_uid"]: json.dumps(row).lower() for row in rows}
            assert len(listed) == len(rows), "a study is listed twice"
            self.happened.worklists.append((day, listed))

    def _waiting_for_rows(self) -> int | None:
        """How many images wait for their rows; None where the database is away."""
        done = self.system.lumbar("status", "--format", "json")
        if done.returncode != 0:
            return None
        rows = {row["what"]: row["value"] for row in json.loads(done.stdout)}
        return int(rows["not registered yet"])

    def _start(self) -> None:
        try:
            (self._up,) = self.system.start()
        except AssertionError:  # it ended again; the next look sees it
            self._up = self.system._running[-1]

    def _note(self, what: str) -> None:
        self.happened.events.append((self.day, what))
        self._progress(f"{what} ({self.state})")

    def _actions(self) -> Iterator[tuple[float, str, Callable[[], object]]]:
        """Day, what happens in words, and what to do."""
        faults = possible_faults(self)
        for planned in self.week.faults:
            begin_and_end = faults.get(planned.fault)
            if begin_and_end is None:
                yield planned.begins, f"not run here: {planned.fault}", lambda: None
                continue
            begin, end = begin_and_end
            yield planned.begins, f"{planned.fault}: begins", begin
            yield planned.ends, f"{planned.fault}: ends", end

    def copy_database(self) -> None:
        if self.postgres is not None:
            self.postgres.dump(self.system.database_url, self._folder / "dump")
            return
        source = sqlite3.connect(self.system.home / "lumbar.sqlite")
        copy = sqlite3.connect(self._folder / "dump")
        source.backup(copy)
        source.close()
        copy.close()

    def restore_database(self) -> None:
        self.happened.restored_on = self.day
        self._up.terminate()
        self._up.wait(120)
        self.system.kill()
        if self.postgres is not None:
            self.system.set(database_url=self.postgres.restored(self._folder / "dump"))
        else:
            for file in self.system.home.glob("lumbar.sqlite*"):
                file.unlink()
            shutil.copy(self._folder / "dump", self.system.home / "lumbar.sqlite")
        self._start()
