"""Four bad PACS at once: one that is away, one that aborts, one that is busy, one that never answers."""

import json
import threading
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification
from sqlalchemy import select

from db.models import Delivery, Job, JobKind, ReportRow, Study
from tests.factories.instances import ROOT
from tests.faults.accounting import Watch, judge, reports_in, settle, snapshot
from tests.faults.outcome import Ground, Outcome
from tests.faults.sending import Senders, make_studies
from tests.peers import free_port
from tests.system import System, closing_database, wait_until

FAULT = "pacs-down"
FULL = 5
STUDIES = 3  # a round
WARNING = 0xB000  # stored, with coercion: a delivery too


class MoodyPacs:
    """A storage SCP that is ``aborting``, ``busy`` (0xA700) or ``silent`` until it is told to be well."""

    def __init__(self, mood: str) -> None:
        self.mood, self.port = mood, free_port()
        self._well = threading.Event()
        self.stored: list[tuple[str, str]] = []
        entity = AE(ae_title=mood.upper())
        entity.maximum_associations = 100
        entity.add_supported_context(Verification)
        entity.add_supported_context(Comprehensive3DSRStorage)
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    @property
    def url(self) -> str:
        return f"dicom://{self.mood.upper()}@127.0.0.1:{self.port}"

    def behave(self, well: bool) -> None:
        if well:
            self._well.set()
        else:
            self._well.clear()

    def close(self) -> None:
        self.behave(True)
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        if self._well.is_set():
            self.stored.append(
                (str(event.dataset.StudyInstanceUID), str(event.request.AffectedSOPInstanceUID))
            )
            return WARNING if self.mood == "busy" else 0x0000
        if self.mood == "aborting":
            event.assoc.abort()
        elif self.mood == "silent":
            self._well.wait(60)  # longer than any sender waits
        return 0xA700


def run(ground: Ground, rounds: int) -> Outcome:
    outcome, orthanc = Outcome(FAULT, rounds), ground.orthanc
    moody = [MoodyPacs(mood) for mood in ("aborting", "busy", "silent")]
    urls = {pacs.mood: pacs.url for pacs in moody}
    urls["away"] = f"dicom://{orthanc.ae_title}@127.0.0.1:{orthanc.dicom_port}"
    settings = {
        "LUMBAR_RETRY_LONGEST_S": "2",
        "LUMBAR_ATTEMPTS": "1000",
        "LUMBAR_DESTINATIONS": json.dumps(urls),
    }
    try:
        with ground.embedded(FAULT, **settings) as system:
            system.start()
            acknowledged = []
            with Watch(system) as watch:
                for number in range(rounds):
                    first = 900_000 + STUDIES * number
                    studies = make_studies(system.folder / "sent", range(first, first + STUDIES))
                    orthanc.kill()
                    with Senders(system.port, studies) as senders:
                        wait_until(lambda: senders.done, 60, system.tail)
                    acknowledged += senders.acknowledged
                    wanted = set(urls)
                    wait_until(lambda: _refused(system, first) >= wanted, 240, system.tail)  # noqa: B023
                    outcome.lost |= {
                        f"{uid}, said to be delivered" for uid in _delivered(system, first)
                    }
                    for pacs in moody:
                        pacs.behave(True)
                    orthanc.__enter__()
                    settle(system, acknowledged, 240)
                    for pacs in moody:
                        pacs.behave(False)
                    ground.progress(f"{FAULT} {number + 1}/{rounds}")
            judge(system, acknowledged, outcome)
            outcome.partial |= watch.partial
            for name, held in {
                **{pacs.mood: pacs.stored for pacs in moody},
                "away": reports_in(orthanc),
            }.items():
                _judge_destination(system, name, held, outcome)
    finally:
        for pacs in moody:
            pacs.close()
    return outcome


def _refused(system: System, first: int) -> set[str]:
    """The destinations that said something else than "stored" in this round, or nothing."""
    asked = select(Job.destination).where(Job.kind == JobKind.DELIVER, Job.last_error.is_not(None))
    with closing_database(system.database_url) as database, database.reading() as session:
        return set(session.scalars(asked.where(Job.report_id.in_(_reports_since(first)))))


def _delivered(system: System, first: int) -> set[str]:
    """Reports of this round that stand as delivered while no PACS was well."""
    said = select(ReportRow.sop_instance_uid).join(Delivery, Delivery.report_id == ReportRow.id)
    with closing_database(system.database_url) as database, database.reading() as session:
        return set(session.scalars(said.where(ReportRow.id.in_(_reports_since(first)))))


def _reports_since(first: int) -> Any:
    return (
        select(ReportRow.id)
        .join(Study, Study.id == ReportRow.study_id)
        .where(Study.study_instance_uid >= f"{ROOT}.{first}")
    )


def _judge_destination(
    system: System, name: str, held: list[tuple[str, str]], outcome: Outcome
) -> None:
    """It holds every report under the one UID of the database, and has all that stands as delivered to it."""
    said = select(ReportRow.sop_instance_uid).join(Delivery, Delivery.report_id == ReportRow.id)
    with closing_database(system.database_url) as database:
        now = snapshot(database)
        with database.reading() as session:
            delivered = set(session.scalars(said.where(Delivery.destination == name)))
    uids = {uid for _, uid in held}
    outcome.lost |= {
        f"{uid} at {name}" for uid in {str(study.report) for study in now.values()} - uids
    }
    outcome.lost |= {f"{uid}, said to be delivered to {name}" for uid in delivered - uids}
    outcome.duplicated |= {
        f"{uid} at {name}" for study, uid in held if study in now and uid != now[study].report
    }
