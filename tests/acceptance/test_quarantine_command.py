"""`lumbar quarantine` and `lumbar study correct` on the command line."""

import json

import pytest
from sqlalchemy import select

from db import studies
from db.models import AuditEvent
from lumbar.store.files import Store
from tests.acceptance.checks import assert_one_line, rows_of
from tests.factories.instances import ROOT
from tests.factories.quarantine import send, send_corrected, send_object, send_unregistrable
from tests.system import System, closing_database

pytestmark = pytest.mark.slow

CORRECTED, PARTLY, CONTRADICTED, NOTHING = (f"{ROOT}.{number}" for number in (1, 2, 3, 4))


@pytest.fixture
def waiting(tmp_path):
    """A site with corrections, a contradiction, other objects and an unregistrable file."""
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    store = Store(system.folder / "home" / "store").create()
    with closing_database(system.database_url) as database:
        send_corrected(database, store, 1, PatientName="Right^Rita\x1b[31m")
        send_corrected(database, store, 2, again=1)
        send(database, store, study=3)
        send(database, store, study=3, fill=99)
        send(database, store, study=3, number=2, PatientName="Other^Name")
        for number in (1, 2):
            send_object(database, store, study=3, number=number)
        send(database, store, study=4)
        send_object(database, store, study=4)
        send_unregistrable(database, store, study=3)
    return system


def listed(system, *options):
    return rows_of(system.lumbar("quarantine", "list", *options, "--format", "csv"))


def audited(system):
    with closing_database(system.database_url) as database, database.reading() as session:
        return [
            (row.event, row.actor, row.study_id)
            for row in session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        ]


def test_quarantined_instances_are_listed_with_reason_source_and_what_they_state(waiting):
    rows = listed(waiting)
    assert [row["study_instance_uid"] for row in rows] == [
        CONTRADICTED,
        CONTRADICTED,
        PARTLY,
        CORRECTED,
        CORRECTED,
    ]
    newer = rows[-1]
    assert newer["reason"] == "a newer copy, which states another patient or accession number"
    assert (newer["patient_identifier"], newer["accession_number"]) == ("OTHER", "A-OTHER")
    assert (newer["source"], newer["has_file"]) == ("PACS", "true")
    assert [row["id"] for row in listed(waiting, "--limit", "2")] == [row["id"] for row in rows[:2]]
    output = waiting.lumbar("quarantine", "list", "--study", PARTLY, "--format", "json").stdout
    (record,) = json.loads(output)
    assert record["id"] == rows[2]["id"]
    table = waiting.lumbar("quarantine", "list").stdout
    assert "Right^Rita" in table
    assert "\x1b" not in table
    assert (
        json.loads(
            waiting.lumbar("quarantine", "list", "--study", "1.2.3", "--format", "json").stdout
        )
        == []
    )


def test_an_instance_is_released_or_dropped_by_its_id(waiting):
    (file, contradicting) = listed(waiting, "--study", CONTRADICTED)
    assert waiting.lumbar("quarantine", "release", contradicting["id"]).returncode == 0
    assert audited(waiting)[-1][0] == "instance.released"
    assert audited(waiting)[-1][1].startswith("command line")
    replaced = listed(waiting, "--study", CONTRADICTED)[-1]
    assert replaced["reason"] == "replaced by a newer copy"
    assert waiting.lumbar("quarantine", "drop", replaced["id"]).returncode == 0
    assert_one_line(
        waiting.lumbar("quarantine", "drop", replaced["id"]), 1, "`lumbar quarantine list`"
    )
    assert waiting.lumbar("quarantine", "drop", file["id"]).returncode == 0
    assert listed(waiting, "--study", CONTRADICTED) == []
    (newer,) = listed(waiting, "--study", PARTLY)
    assert_one_line(waiting.lumbar("quarantine", "release", newer["id"]), 1, "another patient")


def test_a_study_shows_the_correction_that_waits_and_is_taken_over(waiting):
    output = waiting.lumbar("study", CORRECTED).stdout
    assert "Newer copies of 2 of 2 images state patient OTHER, Right^Rita" in output
    assert f"they wait to be taken over: lumbar study correct {CORRECTED}" in " ".join(
        output.split()
    )
    assert f"lumbar quarantine list --study {CORRECTED}" in output
    assert "newer copies" in waiting.lumbar("worklist").stdout
    assert_one_line(waiting.lumbar("study", "correct", PARTLY), 1, "send the whole study again")
    assert_one_line(waiting.lumbar("study", "correct", NOTHING), 1, "no newer copies")
    assert_one_line(waiting.lumbar("study", "correct", "1.2.3"), 1, "no study with UID")
    assert waiting.lumbar("study", "correct", CORRECTED).returncode == 0
    event, actor, _ = audited(waiting)[-1]
    assert (event, actor.split(",")[0]) == ("study.corrected", "command line")
    with closing_database(waiting.database_url) as database, database.reading() as session:
        assert studies.find(session, CORRECTED).patient.patient_identifier == "OTHER"
    after = waiting.lumbar("study", CORRECTED).stdout
    assert "Newer copies" not in after
    assert "2 images quarantined: replaced by a newer copy" in after


def test_a_study_shows_other_objects_and_where_its_images_disagree(waiting):
    output = waiting.lumbar("study", CONTRADICTED).stdout
    assert "2 objects that are no MR images" in output
    assert "Images disagree: patient's name: Test^3 on 1 image counts; Other^Name on 1" in output
    output = waiting.lumbar("study", NOTHING).stdout
    assert "1 object that is no MR image\n" in output
    assert "disagree" not in output
    assert "quarantine" not in output


def test_a_studys_findings_for_programs_hold_nothing_else(waiting):
    records = json.loads(waiting.lumbar("study", CORRECTED, "--format", "json").stdout)
    assert records == []
    assert waiting.lumbar("study", "--format", "csv", CORRECTED).stdout.startswith("row_id,")


def test_the_status_counts_what_is_quarantined(waiting):
    rows = rows_of(waiting.lumbar("status", "--format", "csv"))
    values = {(row["topic"], row["what"]): row["value"] for row in rows}
    assert values["images", "quarantined"] == "4"
    assert values["images", "that cannot be registered"] == "1"
