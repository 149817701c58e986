"""Four faulty PACS at once: one is down, one aborts, one is busy, one never responds."""

import json
import threading
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification
from sqlalchemy import select

from db.models import Delivery, Job, JobKind, ReportRow, Study
from tests.factories.instances import ROOT
from tests.faults.accounting import (
    PartialResultWatch,
    check_outcome,
    reports_in,
    snapshot,
    wait_until_settled,
)
from tests.faults.outcome import Environment, Outcome
from tests.faults.sending import Senders, make_studies
from tests.peers import free_port
from tests.system import System, closing_database, wait_until

FAULT = "pacs-down"
FULL_ROUNDS = 5
STUDIES = 3  # per round
WARNING = 0xB000  # stored, with coercion: counts as delivered


class FaultyPacs:
    """A storage SCP that is ``aborting``, ``busy`` (0xA700) or ``silent`` until set to healthy."""

    def __init__(self, fault: str) -> None:
        self.fault, self.port = fault, free_port()
        self._healthy = threading.Event()
        self.stored: list[tuple[str, str]] = []
        entity = AE(ae_title=fault.upper())
        entity.maximum_associations = 100
        entity.add_supported_context(Verification)
        entity.add_supported_context(Comprehensive3DSRStorage)
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    @property
    def url(self) -> str:
        return f"dicom://{self.fault.upper()}@127.0.0.1:{self.port}"

    def set_healthy(self, healthy: bool) -> None:
        if healthy:
            self._healthy.set()
        else:
            self._healthy.clear()

    def close(self) -> None:
        self.set_healthy(True)
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        if self._healthy.is_set():
            self.stored.append(
                (str(event.dataset.StudyInstanceUID), str(event.request.AffectedSOPInstanceUID))
            )
            return WARNING if self.fault == "busy" else 0x0000
        if self.fault == "aborting":
            event.assoc.abort()
        elif self.fault == "silent":
            self._healthy.wait(60)  # longer than any sender waits
        return 0xA700


def run(environment: Environment, rounds: int) -> Outcome:
    outcome, orthanc = Outcome(FAULT, rounds), environment.orthanc
    faulty = [FaultyPacs(fault) for fault in ("aborting", "busy", "silent")]
    urls = {pacs.fault: pacs.url for pacs in faulty}
    urls["down"] = f"dicom://{orthanc.ae_title}@127.0.0.1:{orthanc.dicom_port}"
    settings = {
        "LUMBAR_RETRY_LONGEST_S": "2",
        "LUMBAR_ATTEMPTS": "1000",
        "LUMBAR_DESTINATIONS": json.dumps(urls),
    }
    try:
        with environment.embedded(FAULT, **settings) as system:
            system.start()
            acknowledged = []
            with PartialResultWatch(system) as watch:
                for number in range(rounds):
                    first = 900_000 + STUDIES * number
                    studies = make_studies(system.folder / "sent", range(first, first + STUDIES))
                    orthanc.kill()
                    with Senders(system.port, studies) as senders:
                        wait_until(lambda: senders.done, 60, system.tail)
                    acknowledged += senders.acknowledged
                    destinations = set(urls)
                    wait_until(lambda: _refused(system, first) >= destinations, 240, system.tail)  # noqa: B023
                    outcome.lost |= {
                        f"{uid}, recorded as delivered" for uid in _delivered(system, first)
                    }
                    for pacs in faulty:
                        pacs.set_healthy(True)
                    orthanc.__enter__()
                    wait_until_settled(system, acknowledged, 240)
                    for pacs in faulty:
                        pacs.set_healthy(False)
                    environment.progress(f"{FAULT} {number + 1}/{rounds}")
            check_outcome(system, acknowledged, outcome)
            outcome.partial |= watch.partial
            for name, stored in {
                **{pacs.fault: pacs.stored for pacs in faulty},
                "down": reports_in(orthanc),
            }.items():
                _check_destination(system, name, stored, outcome)
    finally:
        for pacs in faulty:
            pacs.close()
    return outcome


def _refused(system: System, first: int) -> set[str]:
    """The destinations with a failed delivery in this round."""
    failed = select(Job.destination).where(Job.kind == JobKind.DELIVER, Job.last_error.is_not(None))
    with closing_database(system.database_url) as database, database.reading() as session:
        return set(session.scalars(failed.where(Job.report_id.in_(_reports_since(first)))))


def _delivered(system: System, first: int) -> set[str]:
    """Reports of this round that are recorded as delivered while no PACS was healthy."""
    delivered_reports = select(ReportRow.sop_instance_uid).join(
        Delivery, Delivery.report_id == ReportRow.id
    )
    with closing_database(system.database_url) as database, database.reading() as session:
        return set(
            session.scalars(delivered_reports.where(ReportRow.id.in_(_reports_since(first))))
        )


def _reports_since(first: int) -> Any:
    return (
        select(ReportRow.id)
        .join(Study, Study.id == ReportRow.study_id)
        .where(Study.study_instance_uid >= f"{ROOT}.{first}")
    )


def _check_destination(
    system: System, name: str, stored: list[tuple[str, str]], outcome: Outcome
) -> None:
    """Checks that it has every report under its UID in the database, and all those delivered."""
    delivered_reports = select(ReportRow.sop_instance_uid).join(
        Delivery, Delivery.report_id == ReportRow.id
    )
    with closing_database(system.database_url) as database:
        now = snapshot(database)
        with database.reading() as session:
            delivered = set(session.scalars(delivered_reports.where(Delivery.destination == name)))
    uids = {uid for _, uid in stored}
    outcome.lost |= {
        f"{uid} at {name}" for uid in {str(study.report) for study in now.values()} - uids
    }
    outcome.lost |= {f"{uid}, recorded as delivered to {name}" for uid in delivered - uids}
    outcome.duplicated |= {
        f"{uid} at {name}" for study, uid in stored if study in now and uid != now[study].report
    }
