"""No patient data leaks: patients with planted markers go through the whole distributed system, valid and broken, with
failures all around. No marker is in a log, in the broker, in process arguments or in a file name; they are in the
database and in the files.
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

from lumbar.store.files import Store
from tests.hostile import wire
from tests.hostile.datasets import DATASETS
from tests.hostile.monitored import MonitoredSystem, descendants
from tests.hostile.pixels import UNDECODABLE
from tests.peers import free_port
from tests.servers import Postgres
from tests.system import wait_until

pytestmark = pytest.mark.slow

MARK = "Zq7Mark"  # in texts; dates and times have their own
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
""".split()  # noqa: SIM905 - easier to read without quotes


@dataclass
class Evidence:
    """Everything that could contain a marker, collected while the system ran."""

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
            "LUMBAR_RETRY_HOURS": "0",
            "LUMBAR_FAULT_ATTEMPTS": "2",
        }
        monitored = MonitoredSystem(folder, settings)
        with (
            (folder / "monitor").open("wb") as monitored_commands,
            ArgumentsCollector(monitored) as arguments,
        ):
            monitor = subprocess.Popen(
                ["redis-cli", "-p", str(redis.port), "monitor"], stdout=monitored_commands
            )
            try:
                monitored.system.start()
                run_scenario(monitored, postgres, phantom)
                yield collect_evidence(monitored, client, folder / "monitor", arguments)
            finally:
                monitored.system.kill()
                monitor.kill()
                monitor.wait()


class ArgumentsCollector:
    """A context manager that collects the arguments of the system's processes."""

    def __init__(self, monitored):
        self.monitored, self.arguments, self.stop = monitored, set(), threading.Event()
        self.thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self.arguments

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()

    def _collect(self):
        while not self.stop.wait(0.05):
            with suppress(OSError, ValueError):  # not started yet, or ended
                for pid in descendants(*self.monitored.system.parts().values()):
                    self.arguments.add(Path(f"/proc/{pid}/cmdline").read_bytes())


def run_scenario(monitored, postgres, phantom):
    """Valid and broken images, a restart of the database and columns too narrow for the rows, while no destination responds."""
    system = monitored.system
    good = send(monitored, phantom(1)[0])
    for hostile in DATASETS:
        content = hostile.make(hostile.uid)
        if len(content) < 2**20:
            uid = hostile.uid if hostile.announced_uid is None else hostile.announced_uid
            monitored.store(marked_bytes(content), uid, hostile.syntax, hostile.abstract)
    wait_until(lambda: system.states().get(good) == "analysed", 90, system.tail)
    wait_until(lambda: all(row.state == "dead" for row in system.deliveries(good)), 60, system.tail)

    with psycopg.connect(system.database_url.replace("+psycopg", ""), autocommit=True) as database:
        set_width(database, "patient", "birth_date", 2)
        files = sorted(phantom(3)[0].rglob("*.dcm"))[:3]
        assert {store(monitored, file) for file in files} == {0x0000}
        quarantined = Store(system.home / "store").quarantined
        wait_until(lambda: quarantined() >= 3, 30, system.tail)
        set_width(database, "patient", "birth_date", 8)
        set_width(database, "report", "sha256", 2)
        faulty = send(monitored, phantom(2)[0])
        wait_until(lambda: system.states().get(faulty) == "failed", 90, system.tail)
        set_width(database, "report", "sha256", 64)

    unreadable = send(monitored, phantom(3)[0], undecodable=True)
    postgres.restart_at_once()
    wait_until(lambda: system.states().get(unreadable) == "not_analysable", 90, system.tail)


def set_width(database, table, column, width):
    """Changes the width of a column: too narrow, the database's error message contains the row."""
    database.execute(
        f"ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar({width}) USING left({column}, {width})"
    )


def send(monitored, folder, undecodable=False):
    """Sends a phantom study with markers in every text, and undecodable pixels if ``undecodable``; returns its UID."""
    encodings = list(UNDECODABLE.values())
    sent = []
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        ds, syntax = marked(pydicom.dcmread(path)), wire.EXPLICIT
        if undecodable:
            syntax, content = encodings[number % len(encodings)]
            ds.PixelData = pydicom.encaps.encapsulate([content])
            ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        sent.append((explicit(ds), ds.SOPInstanceUID.encode(), syntax))
    monitored.store_all(sent)
    return ds.StudyInstanceUID


def store(monitored, path):
    ds = marked(pydicom.dcmread(path))
    return monitored.store(explicit(ds), ds.SOPInstanceUID.encode())


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
    """Replaces the name in a broken dataset by one of the same length."""
    return content.replace(b"Hostile^Test", f"{MARK}^Test".encode())


def collect_evidence(monitored, client, monitor, arguments):
    system = monitored.system
    broker = b""
    for key in client.scan_iter("*"):
        broker += key + (client.dump(key) or b"")
    store = system.home / "store"
    with psycopg.connect(system.database_url.replace("+psycopg", "")) as database:
        patients = [name for (name,) in database.execute("SELECT name FROM patient")]
    return Evidence(
        log=system.log.read_bytes(),
        broker=broker + monitor.read_bytes(),
        arguments=b"\n".join(arguments),
        names="\n".join(
            str(path.relative_to(monitored.folder)) for path in system.home.rglob("*")
        ).encode(),
        stored=b"".join(path.read_bytes() for path in store.rglob("*.dcm")),
        patients=patients,
    )


@pytest.mark.parametrize("kind", ["log", "broker", "arguments", "names"])
def test_no_marker_is_where_patient_data_must_not_be(evidence, kind):
    content = getattr(evidence, kind)
    places = {
        mark: content[max(0, content.index(mark) - 200) :][:400]
        for mark in MARKS
        if mark in content
    }
    assert places == {}


def test_the_markers_are_where_patient_data_belongs(evidence):
    assert evidence.patients.count(MARK) >= 1
    assert all(mark in evidence.stored for mark in MARKS)


def test_the_evidence_is_complete(evidence):
    """The log has the injected faults, the broker the notifications, the arguments those of every part."""
    events = (
        b"instance.refused",
        b"instance.unregistrable",
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
