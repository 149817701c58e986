"""UIDs are derived from what a result was made of."""

from dataclasses import replace

import pytest

from lumbar.reports.report_uids import device_uid, report_uid, series_uid, tracking_uid
from lumbar.spine.anatomy import ALL_FINDINGS
from lumbar.spine.provenance import BundleIdentity, Provenance, TrainedOn

BUNDLE = BundleIdentity("baseline", "1", "ab" * 32, TrainedOn.NOTHING, "1")
PROVENANCE = Provenance(BUNDLE, "0.1.0", "cd" * 32, ("1.2.1", "1.2.2"), "ef" * 32)

OTHERS = {
    "bundle's name": replace(PROVENANCE, bundle=replace(BUNDLE, name="other")),
    "bundle's version": replace(PROVENANCE, bundle=replace(BUNDLE, version="2")),
    "weights": replace(PROVENANCE, bundle=replace(BUNDLE, weights_sha256="00" * 32)),
    "code": replace(PROVENANCE, code_version="0.2.0"),
    "settings": replace(PROVENANCE, settings_sha256="00" * 32),
    "inputs": replace(PROVENANCE, input_sop_instance_uids=("1.2.1", "1.2.3")),
    "contents": replace(PROVENANCE, inputs_sha256="00" * 32),
}


@pytest.mark.parametrize("changed", OTHERS)
def test_each_input_of_the_result_changes_its_uid(changed: str) -> None:
    assert report_uid("1.2", OTHERS[changed], "sr") != report_uid("1.2", PROVENANCE, "sr")


def test_the_study_and_the_output_change_the_report_uid() -> None:
    uids = {
        report_uid(study, PROVENANCE, output)
        for study in ("1.2", "1.3")
        for output in ("sr", "picture")
    }

    assert len(uids) == 4


def test_the_order_of_the_inputs_does_not_matter() -> None:
    reversed_inputs = replace(
        PROVENANCE, input_sop_instance_uids=PROVENANCE.input_sop_instance_uids[::-1]
    )

    assert report_uid("1.2", reversed_inputs, "sr") == report_uid("1.2", PROVENANCE, "sr")


def test_the_uid_stays_the_same_from_release_to_release() -> None:
    assert report_uid("1.2", PROVENANCE, "sr") == "2.25.70408162167317202709335399762374260737"


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
    for uid in (report_uid("1.2", PROVENANCE, "sr"), tracking_uid("1.2", ALL_FINDINGS[0])):
        assert uid.startswith("2.25.")
        assert not uid.startswith("2.25.0")
        assert len(uid) <= 64
