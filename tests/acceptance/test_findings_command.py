"""`lumbar findings` as text for users and as JSON or CSV for programs."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from db.audit import Participant
from db.context import SiteContext
from db.ingest import ingest
from db.reviews import add_review, finding_ids
from db.studies import StudyEvent, find
from lumbar.reports.finding_records import FINDING_COLUMNS
from lumbar.settings import Settings
from lumbar.spine.anatomy import ALL_FINDINGS, Severity
from lumbar.store.files import Store
from tests.acceptance.checks import assert_one_line, rows_of
from tests.factories.analyses import CANAL, MODERATE, SEVERE, analysed, end
from tests.factories.instances import ROOT, arrival, make_slice
from tests.system import System, closing_database


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """The command line of a site with a severe study, a moderate one, and one that was refused."""
    system = System(tmp_path_factory.mktemp("cli"), {"LUMBAR_TIME_ZONE": "Asia/Tokyo"})
    assert system.lumbar("db", "upgrade").returncode == 0
    with closing_database(system.database_url) as database:
        site = SiteContext(
            Settings(home=system.home), database, Store(system.home / "store").create()
        )
        analysed(site, 1, {CANAL: SEVERE}, caveats=["the border looks transitional"])
        analysed(site, 2, {CANAL: MODERATE})
        ingest(database, site.store, arrival(make_slice(study=3)))
        end(site, 3, StudyEvent.REFUSED, reason="no lumbar spine was found")
        with database.transaction() as session:
            number = finding_ids(session, find(session, f"{ROOT}.1").id)[CANAL]
            add_review(session, number, Severity.MODERATE, "", Participant("anna"))
    return system


def findings_of(hospital, *options):
    return rows_of(hospital.lumbar("findings", "--format", "csv", *options))


def test_all_findings_are_listed_newest_first_and_per_study_in_the_order_of_the_rsna_rows(hospital):
    rows = findings_of(hospital)
    assert list(rows[0]) == list(FINDING_COLUMNS)
    assert [row["row_id"] for row in rows] == [
        key.row_id(f"{ROOT}.{number}") for number in (3, 2, 1) for key in ALL_FINDINGS
    ]
    assert {row["reason"] for row in rows[:25]} == {"not analysable: no lumbar spine was found"}
    assert {row["assessed"] for row in rows[25:]} == {"true"}
    records = json.loads(hospital.lumbar("findings", "--format", "json").stdout)
    assert [list(record) for record in records] == [list(FINDING_COLUMNS)] * 75
    as_text = [
        {name: "" if value is None else str(value) for name, value in record.items()}
        for record in records
    ]
    for record in as_text:
        record["assessed"] = record["assessed"].lower()
    assert as_text == rows


def test_each_filter_narrows(hospital):
    (severe,) = findings_of(hospital, "--severity", "severe")
    assert severe["row_id"] == CANAL.row_id(f"{ROOT}.1")
    assert (severe["reviewed_severity"], severe["reviewer"]) == ("moderate", "anna")
    assert (severe["patient_name"], severe["caveats"]) == (
        "Test^1",
        "the border looks transitional",
    )
    assert len(findings_of(hospital, "--level", "l4_l5")) == 15
    assert len(findings_of(hospital, "--limit", "7")) == 7
    assert findings_of(hospital, "--scanner", "another one") == []
    assert findings_of(hospital, "--until", "1h") == []
    assert len(findings_of(hospital, "--since", "1h")) == 75


def test_a_time_without_an_offset_is_in_the_sites_zone(hospital):
    in_tokyo = datetime.now(UTC) + timedelta(hours=9)
    before = (in_tokyo - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    after = (in_tokyo + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    assert len(findings_of(hospital, "--since", before, "--until", after)) == 75
    assert findings_of(hospital, "--since", after) == findings_of(hospital, "--until", before) == []


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "-5h"])
def test_an_invalid_time_is_refused_in_one_line(hospital, option, text):
    completed = hospital.lumbar("findings", f"{option}={text}")
    assert_one_line(completed, 2, f"{option} is {text!r}; write a date (2026-11-16)")


def test_the_text_output_has_a_table_per_study_with_the_weights_and_notices(hospital):
    output = hospital.lumbar("findings", "--level", "l4_l5").stdout
    assert [output.count(f"Study {ROOT}.{number}") for number in (1, 2, 3)] == [1, 1, 1]
    assert output.count("not analysable: no lumbar spine was found") == 5
    assert "Weights: b-clinical 1 (clinical), sha256 abab" in output
    assert "Research use only" in output
