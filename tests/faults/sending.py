"""Small studies as files, and senders that keep books: whatever was answered with 0x0000 is never sent again."""

import os
import random
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.factories.instances import make_slice

BATCH = 25  # instances an association
_ROLES = (("sagittal", "T1"), ("sagittal", "T2"), ("axial", "T2"))


@dataclass(frozen=True)
class Sent:
    """An instance as its sender knows it."""

    uid: str
    study: str
    patient: str
    file: Path


def make_study(
    folder: Path, number: int, *, slices: int = 1, patient: int | None = None, side: int = 8
) -> list[Sent]:
    """A study of three series, one for each role, with so many slices each; ``side`` in pixels."""
    instances = []
    patient = number if patient is None else patient
    for series, (plane, weighting) in enumerate(_ROLES, 1):
        for index in range(1, slices + 1):
            place = {
                "plane": plane,
                "weighting": weighting,
                "PatientID": f"P{patient}",
                "PatientName": f"Test^{patient}",
            }
            pixels = {
                "Rows": side,
                "Columns": side,
                "PixelData": ((number * 100 + index) % 65536).to_bytes(2, "little") * side**2,
            }
            ds = make_slice(number, series, index, **place, **pixels)
            file = folder / f"{number}-{series}-{index}.dcm"
            ds.save_as(file, enforce_file_format=True)
            instances.append(Sent(ds.SOPInstanceUID, ds.StudyInstanceUID, f"P{patient}", file))
    return instances


def make_studies(folder: Path, numbers: Iterable[int], **details: int) -> list[list[Sent]]:
    folder.mkdir(parents=True, exist_ok=True)
    return [make_study(folder, number, **details) for number in numbers]


def dataset_of(file: Path) -> bytes:
    """What follows the file meta information (PS3.10 7.1), whose length stands at byte 140."""
    content = file.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def store(port: int, batch: Sequence[Sent], calling: str) -> list[Sent]:
    """DCMTK's storescu on one association; returns what was answered with 0x0000. It halts at the first other."""
    command = [
        "storescu",
        "-v",
        "-xe",
        "-aec",
        "LUMBAR",
        "-aet",
        calling,
        "-to",
        "5",
        "-ta",
        "20",
        "-td",
        "60",
    ]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port), *(str(sent.file) for sent in batch)],
        capture_output=True,
        text=True,
        env=os.environ | {"TCP_NODELAY": "1"},
        timeout=600,
    )
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    return list(batch[: sum("Received Store Response (Success)" in line for line in lines)])


class Senders:
    """Several modalities, each with its queue and its associations; a context manager that stops them."""

    def __init__(self, port: int, queues: Sequence[Sequence[Sent]], batch: int = BATCH) -> None:
        self._port, self._batch = port, batch
        self._queues = [list(queue) for queue in queues]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.acknowledged: list[Sent] = []
        self.refused = 0  # associations in which something was not taken
        self._threads = [
            threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(len(queues))
        ]

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    @property
    def done(self) -> bool:
        return not any(self._queues)

    def _send(self, number: int) -> None:
        queue = self._queues[number]
        while queue and not self._stop.is_set():
            taken = store(self._port, queue[: self._batch], f"MR{number}")
            with self._lock:
                self.acknowledged += taken
                self.refused += len(taken) < len(queue[: self._batch])
            del queue[: len(taken)]
            if not taken:
                self._stop.wait(0.1)  # as long as a queue would pause


def dealt(instances: Sequence[Sent], senders: int) -> list[list[Sent]]:
    """Dealt to so many senders, in turn."""
    return [list(instances[number::senders]) for number in range(senders)]


def shuffled(moments: random.Random, instances: Iterable[Sent]) -> list[Sent]:
    mixed = list(instances)
    moments.shuffle(mixed)
    return mixed
