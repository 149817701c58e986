"""Small studies as files, and senders that record what was acknowledged and never send it again."""

import os
import random
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.factories.instances import make_slice

BATCH = 25  # instances per association
_ROLES = (("sagittal", "T1"), ("sagittal", "T2"), ("axial", "T2"))


@dataclass(frozen=True)
class SentInstance:
    """An instance as known to its sender."""

    uid: str
    study: str
    patient: str
    file: Path


def make_study(
    folder: Path, number: int, *, slices: int = 1, patient: int | None = None, side: int = 8
) -> list[SentInstance]:
    """A study of three series, one per role, with so many slices each; ``side`` in pixels."""
    instances = []
    patient = number if patient is None else patient
    for series, (plane, weighting) in enumerate(_ROLES, 1):
        for index in range(1, slices + 1):
            attributes = {
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
            ds = make_slice(number, series, index, **attributes, **pixels)
            file = folder / f"{number}-{series}-{index}.dcm"
            ds.save_as(file, enforce_file_format=True)
            instances.append(
                SentInstance(ds.SOPInstanceUID, ds.StudyInstanceUID, f"P{patient}", file)
            )
    return instances


def make_studies(folder: Path, numbers: Iterable[int], **details: int) -> list[list[SentInstance]]:
    folder.mkdir(parents=True, exist_ok=True)
    return [make_study(folder, number, **details) for number in numbers]


def dataset_of(file: Path) -> bytes:
    """What follows the file meta information (PS3.10 7.1), whose length is at byte 140."""
    content = file.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def store(port: int, batch: Sequence[SentInstance], calling: str) -> list[SentInstance]:
    """Sends on one association with DCMTK's storescu, which stops at the first failure.

    Returns the instances that were answered with 0x0000.
    """
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
    completed = subprocess.run(
        [*command, "127.0.0.1", str(port), *(str(sent.file) for sent in batch)],
        capture_output=True,
        text=True,
        env=os.environ | {"TCP_NODELAY": "1"},
        timeout=600,
    )
    lines = completed.stdout.splitlines() + completed.stderr.splitlines()
    return list(batch[: sum("Received Store Response (Success)" in line for line in lines)])


class Senders:
    """Several modalities, each with its own queue; a context manager that stops them."""

    def __init__(
        self, port: int, queues: Sequence[Sequence[SentInstance]], batch: int = BATCH
    ) -> None:
        self._port, self._batch = port, batch
        self._queues = [list(queue) for queue in queues]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.acknowledged: list[SentInstance] = []
        self.refused = 0  # associations with an instance that was not acknowledged
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
            acknowledged = store(self._port, queue[: self._batch], f"MR{number}")
            with self._lock:
                self.acknowledged += acknowledged
                self.refused += len(acknowledged) < len(queue[: self._batch])
            del queue[: len(acknowledged)]
            if not acknowledged:
                self._stop.wait(0.1)  # a short pause, as a send queue makes


def distribute(instances: Sequence[SentInstance], senders: int) -> list[list[SentInstance]]:
    """Distributes the instances to so many senders, in turn."""
    return [list(instances[number::senders]) for number in range(senders)]


def shuffled(rng: random.Random, instances: Iterable[SentInstance]) -> list[SentInstance]:
    shuffled_instances = list(instances)
    rng.shuffle(shuffled_instances)
    return shuffled_instances
