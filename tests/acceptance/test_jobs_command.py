"""`lumbar jobs`, `lumbar status` and quarantined images on the command line."""

import json

import pytest

from db import studies
from db.ingest import ingest
from lumbar.store.files import Store
from tests.acceptance.checks import assert_one_line, rows_of
from tests.factories.instances import ROOT, arrival, make_slice
from tests.system import System, closing_database

pytestmark = pytest.mark.slow


@pytest.fixture
def waiting(tmp_path):
    """A site with two queued studies, the second a STAT order; the first has quarantined images."""
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    store = Store(system.folder / "home" / "store").create()
    with closing_database(system.database_url) as database:
        for number, priority in ((1, "LOW"), (2, "STAT")):
            ingest(
                database,
                store,
                arrival(make_slice(study=number, RequestedProcedurePriority=priority)),
            )
            with database.transaction() as session:
                assert studies.complete(session, studies.find(session, f"{ROOT}.{number}").id)
        for columns in (4, 6):
            changed = make_slice(PixelData=bytes(8 * columns * 2), Columns=columns)
            ingest(database, store, arrival(changed))
    return system


def test_jobs_are_listed_in_claiming_order_without_patient_data(waiting):
    rows = rows_of(waiting.lumbar("jobs", "list", "--format", "csv"))
    assert [(row["job"], row["study_instance_uid"]) for row in rows] == [
        ("2", f"{ROOT}.2"),
        ("1", f"{ROOT}.1"),
    ]
    assert {(row["kind"], row["state"], row["attempts"]) for row in rows} == {
        ("analyse", "pending", "0")
    }
    output = waiting.lumbar(
        "jobs", "list", "--state", "pending", "--kind", "analyse", "--format", "json"
    ).stdout
    assert [record["job"] for record in json.loads(output)] == [2, 1]
    assert (
        json.loads(waiting.lumbar("jobs", "list", "--kind", "deliver", "--format", "json").stdout)
        == []
    )
    table = waiting.lumbar("jobs", "list").stdout
    assert f"{ROOT}.1" in table
    assert "Test" not in output + table


def test_a_job_is_cancelled_and_retried_by_its_number(waiting):
    assert waiting.lumbar("jobs", "cancel", "1").returncode == 0
    assert (
        "failed: its analysis was cancelled by an operator"
        in waiting.lumbar("study", f"{ROOT}.1").stdout
    )
    assert_one_line(waiting.lumbar("jobs", "retry", "1"), 1, "job 1 is cancelled")
    assert_one_line(waiting.lumbar("jobs", "cancel", "9"), 1, "there is no job 9")
    assert waiting.lumbar("jobs", "retry", "2").returncode == 0


def test_a_study_shows_how_many_images_were_quarantined_and_why(waiting):
    output = waiting.lumbar("study", f"{ROOT}.1").stdout
    assert "2 images quarantined: other content under the same SOP Instance UID" in output
    assert "quarantined" not in waiting.lumbar("study", f"{ROOT}.2").stdout


def test_the_status_shows_backlog_and_configuration_on_one_screen(waiting):
    waiting.set(destinations=json.dumps({"archive": "https://anna:secret@pacs/dicom-web"}))
    rows = rows_of(waiting.lumbar("status", "--format", "csv"))
    values = {(row["topic"], row["what"]): row["value"] for row in rows}
    assert values["studies", "queued"] == "2"
    assert values["jobs", "analyse, pending"] == "2"
    assert int(values["jobs", "analyse, oldest waiting"]) < 600
    assert values["jobs", "leases expired"] == "0"
    assert (values["worklist", "unread"], values["worklist", "unread, severe"]) == ("2", "0")
    assert 0 < float(values["disk", "fill, 0-1"]) < 1
    assert values["destinations", "archive"] == "https://pacs/dicom-web"
    assert values["system", "weights"].startswith("phantom 1 (synthetic)")
    records = json.loads(waiting.lumbar("status", "--format", "json").stdout)
    assert [record["what"] for record in records] == [row["what"] for row in rows]
    table = waiting.lumbar("status").stdout
    assert len(table.splitlines()) < 40
    assert "secret" not in table


def test_the_status_of_a_missing_database_is_one_line(tmp_path):
    completed = System(tmp_path / "cli", {}).lumbar("status")
    assert_one_line(completed, 1, "run `lumbar db upgrade`")
