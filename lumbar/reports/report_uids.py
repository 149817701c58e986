"""UIDs derived from what they identify: equal things have equal UIDs, different ones do not.

All are ``2.25.`` + a name-based UUID (PS3.5 B.2, RFC 9562 section 5.5), at most 44 characters.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple
from datetime import datetime
from uuid import NAMESPACE_DNS, uuid5

from lumbar.spine.anatomy import FindingKey
from lumbar.spine.provenance import Provenance

_NAMESPACE = uuid5(NAMESPACE_DNS, "lumbar-triage")


def _uid(kind: str, *parts: object) -> str:
    """A UID of JSON, which separates the parts: ("a", "bc") and ("ab", "c") differ."""
    return f"2.25.{uuid5(_NAMESPACE, json.dumps([kind, *parts])).int}"


def report_uid(
    study_instance_uid: str,
    output: str,
    draft_sha256: str,
    created: datetime,
    number: int,
    predecessors: Sequence[str],
) -> str:
    """SOP Instance UID of a report of one kind of ``output`` (``"sr"``, ``"picture"``).

    It depends on everything in the report: on what it says, when it was created, its number and the
    UIDs of the reports that it replaces. So no two files with different bytes have the same UID,
    whatever the database has forgotten.
    """
    moment = created.isoformat(timespec="microseconds")
    return _uid(
        "instance", study_instance_uid, output, draft_sha256, moment, number, sorted(predecessors)
    )


def series_uid(study_instance_uid: str, provenance: Provenance, output: str) -> str:
    """Series Instance UID: one series per study, bundle and kind of output."""
    return _uid("series", study_instance_uid, astuple(provenance.bundle), output)


def device_uid(provenance: Provenance) -> str:
    """UID of the observing device: weights and code. Retrained weights are another device."""
    return _uid("device", astuple(provenance.bundle), provenance.code_version)


def tracking_uid(sop_instance_uid: str, key: FindingKey) -> str:
    """One per finding of each report, because viewers merge measurement groups that share one."""
    return _uid("tracking", sop_instance_uid, key.condition, key.level)
