"""Four bad PACS at once: one that is away, one that aborts, one that is busy, one that never answers."""

import json
import threading
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification

from tests.faults.books import Watch, judge, reports_in, settle
from tests.faults.outcome import Ground, Outcome
from tests.faults.sending import Senders, make_studies
from tests.peers import free_port
from tests.system import wait_until

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
            self.stored.append((str(event.dataset.StudyInstanceUID), str(event.request.AffectedSOPInstanceUID)))
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
    settings = {"LUMBAR_RETRY_LONGEST_S": "2", "LUMBAR_ATTEMPTS": "1000", "LUMBAR_DESTINATIONS": json.dumps(urls)}
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
                    outcome.lost |= {f"{uid}, said to be delivered" for uid in _delivered(system, first)}
                    for pacs in moody:
                        pacs.behave(True)
                    orthanc.__enter__()
                    settle(system, acknowledged, 240)
                    for pacs in moody:
                        pacs.behave(False)
                    ground.progress(f"{FAULT} {number + 1}/{rounds}")
            judge(system, acknowledged, outcome)
            outcome.partial |= watch.partial
            for name, held in {**{pacs.mood: pacs.stored for pacs in moody}, "away": reports_in(orthanc)}.items():
                _judge_destination(system, name, held, outcome)
    finally:
        for pacs in moody:
            pacs.close()
    return outcome
