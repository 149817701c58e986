"""`lumbar` with stub networks, for its child processes too: ``python -m tests.stubbed up``.

The analysis of a study whose UID names a file in the folder ``held`` waits until the file is gone.

``TESTS_READING=headers`` stubs the whole reading, for studies too small to be read: 25 findings from the headers.
``TESTS_READING_S`` makes that take so many seconds; ``TESTS_STORED_S`` are spent between a peer's "stored" and the row
that notes it. Both widen the moments in which a worker can be killed.
"""

import os
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import commands
from commands import system
from lumbar import peers
from lumbar.dicom.folder import Found
from lumbar.spine.anatomy import ALL_FINDINGS, Level
from lumbar.spine.findings import Finding, Place
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from worker import analysis
from worker.pipeline import Analysis

HELD = Path("held")


class StubNetworks:
    """Every crop shows every condition alike and is graded by its mean brightness: the same crop, the same answer."""

    identity = BundleIdentity("stub", "1", "0" * 64, TrainedOn.NOTHING, "1")

    def conditions(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(crops), 6), 1 / 6, np.float32)

    def severities(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        mean = crops.mean(axis=(1, 2)).clip(0, 1)
        return np.stack([mean, (1 - mean) / 2, (1 - mean) / 2], axis=1)


def hold(analyse):
    def held(instances, networks):
        while (HELD / instances[0].header.StudyInstanceUID).exists():
            time.sleep(0.05)
        return analyse(instances, networks)

    return held


def findings_of(instances: Sequence[Found]) -> tuple[Finding, ...]:
    """25 findings that follow from the set of SOP Instance UIDs; those of L4/L5 are assessed, each in an instance."""
    headers = sorted((found.slices[0] for found in instances), key=lambda header: header.sop_instance_uid)
    seed = sha256("\n".join(header.sop_instance_uid for header in headers).encode()).digest()
    findings = []
    for number, key in enumerate(ALL_FINDINGS):
        if key.level is not Level.L4_L5:
            findings.append(Finding(*key.parts, reason="the stub reads L4/L5 only"))
            continue
        header = headers[(seed[0] + number) % len(headers)]
        x, y, z = (float(value) for value in header.to_patient(3.0, 4.0))
        uids = (header.series_instance_uid, header.sop_class_uid, header.sop_instance_uid)
        severe = seed[number] / 255
        place = Place(*uids, header.frame, 3.0, 4.0, x, y, z)
        findings.append(Finding(*key.parts, probabilities=(1 - severe, 0.0, severe), place=place, shows=0.5))
    return tuple(findings)


def stub_the_reading() -> None:
    def analyse(instances: Sequence[Found], *_: object, **__: object) -> Analysis:
        time.sleep(float(os.environ.get("TESTS_READING_S", "0")))
        return Analysis(instances[0].slices[0].study_instance_uid, findings_of(instances), ())

    analysis.analyse = analyse
    real = peers.send

    def send(*arguments: object, **options: object) -> peers.Delivered:
        delivered = real(*arguments, **options)  # type: ignore[arg-type]
        time.sleep(float(os.environ.get("TESTS_STORED_S", "0")))
        return delivered

    peers.send = send


if __name__ == "__main__":
    system.PROGRAM = (sys.executable, "-m", "tests.stubbed")
    system.load_networks = lambda settings: StubNetworks  # type: ignore[assignment]
    if os.environ.get("TESTS_READING") == "headers":
        stub_the_reading()
    analysis.analyse = hold(analysis.analyse)
    commands.main()
