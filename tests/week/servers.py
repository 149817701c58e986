"""The servers around the system: archives that record what they store, and clocks that jump."""

import os
import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from tests.peers import Orthanc
from tests.servers import Postgres

RECORD = """
function OnStoredInstance(id, tags, metadata, origin)
  local digest = RestApiGet('/instances/' .. id .. '/attachments/dicom/md5')
  local file = io.open('{log}', 'a')
  local words = {{tags['StudyInstanceUID'], tags['SOPInstanceUID'], digest, os.time()}}
  file:write(table.concat(words, ' '), '\\n')
  file:close()
end
"""


@dataclass(frozen=True)
class StoredReport:
    """A report of ours in an archive.

    ``images``: those that it refers to. ``content``: digest of the dataset as it is encoded.
    """

    uid: str
    study: str
    patient: str
    images: frozenset[str]
    predecessors: frozenset[str]
    content: str


class RecordingOrthanc(Orthanc):
    """Orthanc that lets a newer version replace an older one, and notes the digest of each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._stored = folder / "stored"
        script = folder / "record.lua"
        script.write_text(RECORD.format(log=self._stored))
        super().__init__(folder, OverwriteInstances=True, LuaScripts=[str(script)])

    @property
    def stored(self) -> dict[str, set[str]]:
        """SOP Instance UID → digests of all files that were ever stored under it."""
        digests = defaultdict(set)
        for _, uid, digest, _ in self._lines():
            digests[uid].add(digest)
        return dict(digests)

    @property
    def newest(self) -> dict[str, float]:
        """Study Instance UID → when a report of it was stored last, seconds since 1970."""
        return {study: float(at) for study, _, _, at in self._lines()}

    def _lines(self) -> list[list[str]]:
        lines = self._stored.read_text().splitlines() if self._stored.exists() else []
        return [line.split() for line in lines]

    def reports(self) -> list[StoredReport]:
        """Every report there, read from its file."""
        return [self._report(instance) for instance in self.rest("/instances")]

    def _report(self, instance: str) -> StoredReport:
        file = self.download(f"/instances/{instance}/file")
        ds = dcmread(BytesIO(file))
        dataset = file[144 + int.from_bytes(file[140:144], "little") :]  # PS3.10 7.1
        images = {
            item.ReferencedSOPInstanceUID
            for study in ds.get("CurrentRequestedProcedureEvidenceSequence", ())
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        predecessors = {
            item.ReferencedSOPInstanceUID
            for study in ds.get("PredecessorDocumentsSequence", ())
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        return StoredReport(
            str(ds.SOPInstanceUID),
            str(ds.StudyInstanceUID),
            str(ds.PatientID),
            frozenset(map(str, images)),
            frozenset(map(str, predecessors)),
            sha256(dataset).hexdigest(),
        )


class Clock:
    """The wall clock of the processes that run with ``variables`` (``clock.c``)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        self._file, library = folder / "ahead", folder / "clock.so"
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)
        options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library)]
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", *options, str(source), "-ldl"], check=True)
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def set(self, ahead_s: float) -> None:
        """Lets the processes' clocks be so far ahead, from now on."""
        with self._file.open("r+b") as file:
            file.write(round(ahead_s).to_bytes(8, "little", signed=True))


class FailingPostgres(Postgres):
    """PostgreSQL by a clock of ours, which can be read-only, and copied and restored."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder)
        settings = [f"{name}={value}" for name, value in clock.variables.items()]
        self._command = ["env", *settings, *self._command]

    def set_read_only(self, read_only: bool) -> None:
        """As a server is that a failover has made the standby: sessions stay, writes fail."""
        self._execute(f"ALTER SYSTEM SET default_transaction_read_only = {read_only}")
        self._execute("SELECT pg_reload_conf()")

    def dump(self, url: str, file: Path) -> None:
        self._run("pg_dump", "-Fc", "-f", str(file), self._plain(url))

    def restored(self, file: Path) -> str:
        """The URL of a new database with the content of a dump."""
        url = self.new_database()
        self._run("pg_restore", "--no-owner", "-d", self._plain(url), str(file))
        return url

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @staticmethod
    def _plain(url: str) -> str:
        return url.replace("+psycopg", "")


class SmallDisk:
    """A disk of its own for a folder, which can be filled; not mounted where that needs root."""

    def __init__(self, folder: Path, mib: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
        self.mounted = (
            os.geteuid() == 0
            and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leaves 100 KiB."""
        free = os.statvfs(self.folder)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 100 * 1024)

    def free(self) -> None:
        with suppress(FileNotFoundError):
            self._filler.unlink()

    @cached_property
    def _filler(self) -> Path:
        return self.folder / "filler"
