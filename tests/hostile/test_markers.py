"""Marked patients go through the whole distributed system, good and broken, with everything around it failing: no mark
is in a log, in the broker, in a process's arguments or in a file's name. It is in the database and in the files.
"""

import json
import subprocess
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pydicom
import pytest
from redis import Redis

from tests.hostile import wire
from tests.hostile.datasets import DATASETS
from tests.hostile.pixels import UNDECODABLE
from tests.hostile.watched import Watched, descendants
from tests.peers import free_port
from tests.servers import Postgres
from tests.system import wait_until

pytestmark = pytest.mark.slow

MARK = "Zq7Mark"  # in texts; dates and times cannot hold it
DATE, TIME = "18991231", "235958.731"
MARKS = (MARK.encode(), DATE.encode(), TIME.encode())
DATES = {"PatientBirthDate": DATE, "PatientBirthTime": TIME}
TEXTS = """
    AccessionNumber AdditionalPatientHistory AdmissionID AdmittingDiagnosesDescription BranchOfService CountryOfResidence
    EthnicGroup ImageComments InstitutionAddress InstitutionName InstitutionalDepartmentName IssuerOfPatientID
    MedicalRecordLocator MilitaryRank NameOfPhysiciansReadingStudy Occupation OperatorsName OtherPatientIDs
    OtherPatientNames PatientAddress PatientBirthName PatientComments PatientID PatientMotherBirthName PatientName
    PatientReligiousPreference PatientTelephoneNumbers PerformedProcedureStepDescription PerformingPhysicianName
    PhysiciansOfRecord ProtocolName ReferringPhysicianAddress ReferringPhysicianName ReferringPhysicianTelephoneNumbers
    RegionOfResidence RequestAttributesSequence RequestedProcedureDescription RequestingPhysician ResponsiblePerson
    SeriesDescription StationName StudyComments StudyDescription StudyID
""".split()  # noqa: SIM905 - so many names are easier to read without quotes


@dataclass
class Evidence:
    """All that could hold a mark, gathered while the system lived."""

    log: bytes = b""
    broker: bytes = b""
    arguments: bytes = b""
    names: bytes = b""
    stored: bytes = b""
    patients: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory, redis, phantom):
    folder = tmp_path_factory.mktemp("markers")
    refusing = f"dicom://NOBODY@127.0.0.1:{free_port()}"
    with Postgres(folder / "postgres") as postgres, closing(Redis.from_url(redis.url)) as client:
        client.flushall()
        settings = {
            "LUMBAR_DATABASE_URL": postgres.new_database(),
            "LUMBAR_BROKER_URL": redis.url,
            "LUMBAR_DESTINATIONS": json.dumps(
                {"pacs": refusing, "web": refusing.replace("dicom://NOBODY@", "http://")}
            ),
            "LUMBAR_ATTEMPTS": "3",
            "LUMBAR_FAULT_ATTEMPTS": "2",
        }
        watched = Watched(folder, settings)
        with (folder / "monitor").open("wb") as heard, looking(watched) as seen:
            monitor = subprocess.Popen(
                ["redis-cli", "-p", str(redis.port), "monitor"], stdout=heard
            )
            try:
                watched.system.start()
                live_through(watched, postgres, phantom)
                yield gathered(watched, client, folder / "monitor", seen)
            finally:
                watched.system.kill()
                monitor.kill()
                monitor.wait()


class looking:  # noqa: N801 - a context manager
    """Collects the arguments of the system's processes for as long as it is entered."""

    def __init__(self, watched):
        self.watched, self.lines, self.stop = watched, set(), threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self.lines

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()

    def look(self):
        while not self.stop.wait(0.05):
            with suppress(OSError, ValueError):  # it is not started yet, or has ended
                for pid in descendants(*self.watched.system.parts().values()):
                    self.lines.add(Path(f"/proc/{pid}/cmdline").read_bytes())


def live_through(watched, postgres, phantom):
    """Good and broken images, a database that restarts and one that cannot hold the rows, while no destination answers."""
    system = watched.system
    good = send(watched, phantom(1)[0])
    for hostile in DATASETS:
        content = hostile.make(hostile.uid)
        if len(content) < 2**20:
            uid = hostile.uid if hostile.announced is None else hostile.announced
            watched.store(marked_bytes(content), uid, hostile.syntax, hostile.abstract)
    wait_until(lambda: system.states().get(good) == "analysed", 90, system.tail)
    wait_until(lambda: all(row.state == "dead" for row in system.deliveries(good)), 60, system.tail)

    with psycopg.connect(system.database_url.replace("+psycopg", ""), autocommit=True) as database:
        narrowed(database, "patient", "birth_date", 2)
        assert {store(watched, file) for file in sorted(phantom(3)[0].rglob("*.dcm"))[:3]} == {
            0x0110
        }
        narrowed(database, "patient", "birth_date", 8)
        narrowed(database, "report", "sha256", 2)
        faulty = send(watched, phantom(2)[0])
        wait_until(lambda: system.states().get(faulty) == "failed", 90, system.tail)
        narrowed(database, "report", "sha256", 64)

    undecodable = send(watched, phantom(3)[0], spoilt=True)
    postgres.restart_at_once()
    wait_until(lambda: system.states().get(undecodable) == "not_analysable", 90, system.tail)


def narrowed(database, table, column, width):
    """A column that takes less, or as much again: a row for it is an error that holds the row."""
    database.execute(
        f"ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar({width}) USING left({column}, {width})"
    )


def send(watched, folder, spoilt=False):
    """A phantom study with marks in every text, and pixels that cannot be decoded where ``spoilt``; its UID."""
    ways = list(UNDECODABLE.values())
    sent = []
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        ds, syntax = marked(pydicom.dcmread(path)), wire.EXPLICIT
        if spoilt:
            syntax, content = ways[number % len(ways)]
            ds.PixelData = pydicom.encaps.encapsulate([content])
            ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        sent.append((explicit(ds), ds.SOPInstanceUID.encode(), syntax))
    watched.store_all(sent)
    return ds.StudyInstanceUID


def store(watched, path):
    ds = marked(pydicom.dcmread(path))
    return watched.store(explicit(ds), ds.SOPInstanceUID.encode())


def marked(ds):
    for keyword in TEXTS:
        if keyword == "RequestAttributesSequence":
            item = pydicom.Dataset()
            item.RequestedProcedureDescription = MARK
            ds.RequestAttributesSequence = [item]
        else:
            setattr(ds, keyword, MARK)
    for keyword, value in DATES.items():
        setattr(ds, keyword, value)
    return ds


def explicit(ds):
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, ds)
    return buffer.getvalue()


def marked_bytes(content):
    """A broken dataset's name by one that is as long."""
    return content.replace(b"Hostile^Test", f"{MARK}^Test".encode())


def gathered(watched, client, monitor, seen):
    system = watched.system
    held = b""
    for key in client.scan_iter("*"):
        held += key + (client.dump(key) or b"")
    store = system.home / "store"
    with psycopg.connect(system.database_url.replace("+psycopg", "")) as database:
        patients = [name for (name,) in database.execute("SELECT name FROM patient")]
    return Evidence(
        log=system.log.read_bytes(),
        broker=held + monitor.read_bytes(),
        arguments=b"\n".join(seen),
        names="\n".join(
            str(path.relative_to(watched.folder)) for path in system.home.rglob("*")
        ).encode(),
        stored=b"".join(path.read_bytes() for path in store.rglob("*.dcm")),
        patients=patients,
    )


@pytest.mark.parametrize("place", ["log", "broker", "arguments", "names"])
def test_no_mark_is_where_patient_data_may_not_be(evidence, place):
    content = getattr(evidence, place)
    found = {
        mark: content[max(0, content.index(mark) - 200) :][:400]
        for mark in MARKS
        if mark in content
    }
    assert found == {}


def test_the_marks_are_where_patient_data_belongs(evidence):
    assert evidence.patients.count(MARK) >= 1
    assert all(mark in evidence.stored for mark in MARKS)


def test_what_was_searched_is_what_happened(evidence):
    """The log holds the faults that were made, the broker's the bells, the arguments those of every part."""
    events = (
        b"instance.refused",
        b"receiver.fault",
        b"job.fault",
        b"job.started",
        b"association.aborted",
    )
    assert [event for event in events if event not in evidence.log] == []
    assert b"lumbar" in evidence.broker
    assert b"BRPOP" in evidence.broker
    assert all(
        part in evidence.arguments
        for part in (b"scp", b"sweep", b"worker", b"lumbar.dicom.instance_identity")
    )
    assert b".dcm" in evidence.names
