"""A stub of the analysis that uses headers alone, for studies too small to be analysed.

Storing the result and the report are real. With ``TESTS_READING=every-image`` there is a finding on
each image of a study of at most 25. ``TESTS_READING_S`` is how many seconds it takes;
``TESTS_STORED_S`` is the delay between a peer's success response and the row that records it. Both
widen the window in which a worker can be killed.
"""

import os
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from lumbar.dicom.discover import MRInstance
from lumbar.peers import Peer, Sent
from lumbar.spine.anatomy import ALL_FINDINGS, Level
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.roles import Roles
from worker import analysis
from worker.pipeline import Analysis


def replace() -> None:
    """Replaces the pipeline in this process."""
    analysis.analyse = by_headers  # type: ignore[attr-defined]


def delay_responses() -> None:
    """Delays what destinations respond, in this process."""
    real = Peer.send

    def send(self: Peer, file: Path, *, not_after: float | None = None) -> Sent:
        sent = real(self, file, not_after=not_after)
        time.sleep(float(os.environ.get("TESTS_STORED_S", "0")))
        return sent

    Peer.send = send  # type: ignore[method-assign]


def by_headers(instances: Sequence[MRInstance], *_: object) -> Analysis:
    """25 findings derived from the set of SOP Instance UIDs; those of L4/L5 are assessed."""
    time.sleep(float(os.environ.get("TESTS_READING_S", "0")))
    headers = sorted(
        (instance.slices[0] for instance in instances), key=lambda header: header.sop_instance_uid
    )
    seed = sha256("\n".join(header.sop_instance_uid for header in headers).encode()).digest()
    findings, every_image = [], os.environ.get("TESTS_READING") == "every-image"
    for number, key in enumerate(ALL_FINDINGS):
        read = number < len(headers) if every_image else key.level is Level.L4_L5
        if not read:
            findings.append(Finding(*key.parts, reason="only some levels are read"))
            continue
        header = headers[(seed[0] + number) % len(headers)]
        x, y, z = (float(value) for value in header.to_patient(3.0, 4.0))
        uids = (header.series_instance_uid, header.sop_class_uid, header.sop_instance_uid)
        severe = seed[number] / 255
        point = ImagePoint(*uids, header.frame, 3.0, 4.0, x, y, z)
        findings.append(
            Finding(*key.parts, probabilities=(1 - severe, 0.0, severe), point=point, shows=0.5)
        )
    return Analysis(headers[0].study_instance_uid, tuple(findings), (), Roles({}, ()))
