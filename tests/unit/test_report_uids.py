"""UIDs are derived from what they identify."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lumbar.reports.report_uids import device_uid, report_uid, series_uid, tracking_uid
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.provenance import BundleIdentity, Provenance, TrainedOn

BUNDLE = BundleIdentity("baseline", "1", "ab" * 32, TrainedOn.NOTHING, "1")
PROVENANCE = Provenance(BUNDLE, "0.1.0", "cd" * 32, ("1.2.1", "1.2.2"), "ef" * 32)

OTHERS = {
    "weights": replace(PROVENANCE, bundle=replace(BUNDLE, weights_sha256="00" * 32)),
    "code": replace(PROVENANCE, code_version="0.2.0"),
    "settings": replace(PROVENANCE, settings_sha256="00" * 32),
    "inputs": replace(PROVENANCE, input_sop_instance_uids=("1.2.1", "1.2.3")),
}
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
REPORT = {
    "study_instance_uid": "1.2",
    "output": "sr",
    "draft_sha256": "ab" * 32,
    "created": CREATED,
    "number": 1,
    "predecessors": ["1.2.3", "1.2.4"],
}


@pytest.mark.parametrize(
    "changed",
    [
        {"study_instance_uid": "1.3"},
        {"output": "picture"},
        {"draft_sha256": "cd" * 32},
        {"created": CREATED + timedelta(microseconds=1)},
        {"number": 2},
        {"predecessors": ["1.2.3"]},
        {"predecessors": []},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_everything_in_a_report_changes_its_uid(changed: dict[str, object]) -> None:
    assert report_uid(**(REPORT | changed)) != report_uid(**REPORT)


def test_the_uid_stays_the_same_from_release_to_release() -> None:
    assert report_uid(**REPORT) == "2.25.147094089476383000102684323586810438584"


def test_a_series_contains_the_reports_of_one_bundle_for_one_study() -> None:
    same = {series_uid("1.2", OTHERS[changed], "sr") for changed in ("code", "settings", "inputs")}

    assert same == {series_uid("1.2", PROVENANCE, "sr")}
    assert series_uid("1.2", OTHERS["weights"], "sr") not in same
    assert series_uid("1.3", PROVENANCE, "sr") not in same


def test_only_retraining_makes_another_device() -> None:
    assert device_uid(OTHERS["weights"]) != device_uid(PROVENANCE)
    assert device_uid(OTHERS["inputs"]) == device_uid(PROVENANCE)


def test_every_finding_of_every_report_has_its_own_tracking_uid() -> None:
    assert (
        len({tracking_uid(report, key) for report in ("1.2", "1.3") for key in ALL_FINDINGS}) == 50
    )


def test_uids_are_valid() -> None:
    for uid in (report_uid(**REPORT), tracking_uid("1.2", ALL_FINDINGS[0])):
        assert uid.startswith("2.25.")
        assert not uid.startswith("2.25.0")
        assert len(uid) <= 64
