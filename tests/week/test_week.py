"""A short week, and whether the accounting sees what it must; ``make week`` runs a long one."""

from collections.abc import Iterator
from io import BytesIO

import pytest
from pydicom import dcmread

from tests.week.accounting import account
from tests.week.plan import Kind, plan
from tests.week.run import Hospital

pytestmark = pytest.mark.slow

SEED, STUDIES, DAYS, DAY_S = 20261130, 10, 3, 10.0


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """The hospital after its week."""
    week = plan(SEED, STUDIES, DAYS)
    with Hospital(tmp_path_factory.mktemp("week"), week, DAY_S, "sqlite") as hospital:
        hospital.run()
        yield hospital


def violations(hospital: Hospital) -> dict[str, tuple[str, ...]]:
    return {check.rule: check.violations for check in account(hospital) if check.violations}


def test_the_same_seed_plans_the_same_week():
    assert plan(1, 60, 7) == plan(1, 60, 7) != plan(2, 60, 7)
    assert {study.kind for study in plan(1, 10, 3).studies} >= set(Kind) - {Kind.PLAIN}


def test_a_week_breaks_no_rule(hospital):
    assert violations(hospital) == {}


def test_the_accounting_sees_what_is_lost_replaced_or_anothers(hospital):
    pacs = hospital.archives["pacs"]
    lost, altered, moved = (study.uid for study in hospital.studies[:3])
    reports = {report.study: report for report in pacs.reports()}
    pacs.delete(place(pacs, reports[lost].uid))
    store(pacs, reports[altered].uid, ContentTime="000001")
    store(pacs, reports[moved].uid, PatientID="SOMEBODY", SOPInstanceUID="1.2.3")
    found = violations(hospital)
    assert any(lost in words for words in found["0 studies lost: a report of all images"])
    assert any(reports[altered].uid in words for words in found["0 two contents under one UID"])
    assert "1.2.3 at pacs" in found["0 reports under a wrong patient"]
    assert f"{moved} at pacs: 2" in found["one current report per study"]


def place(pacs, uid: str) -> str:
    """An instance's path in Orthanc's API."""
    (found,) = pacs.post("/tools/lookup", uid.encode())
    return str(found["Path"])


def store(pacs, uid: str, **elements: str) -> None:
    """Stores a report again, with other elements."""
    ds = dcmread(BytesIO(pacs.download(f"{place(pacs, uid)}/file")))
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    content = BytesIO()
    ds.save_as(content, enforce_file_format=True)
    pacs.post("/instances", content.getvalue())
