"""Users, reading and reviews on the command line."""

import json
import socket

import pytest

from commands import users
from db.accounts import LastAdministrator
from db.audit import Participant
from db.context import SiteContext
from db.reviews import add_review, finding_ids
from db.studies import find
from lumbar.settings import Settings
from lumbar.spine.anatomy import Severity
from lumbar.store.files import Store
from tests.acceptance.checks import assert_one_line, rows_of
from tests.factories.analyses import CANAL, SEVERE, analysed
from tests.factories.instances import ROOT
from tests.system import System, closing_database

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery\n"


@pytest.fixture
def hospital(tmp_path):
    """The command line of a site with a severe and two normal studies."""
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    with closing_database(system.database_url) as database:
        site = SiteContext(
            Settings(home=system.home), database, Store(system.home / "store").create()
        )
        for number, exceptions in ((1, {}), (2, {CANAL: SEVERE}), (3, {})):
            analysed(site, number, exceptions)
        with database.transaction() as session:
            study = find(session, f"{ROOT}.2")
            add_review(
                session,
                finding_ids(session, study.id)[CANAL],
                Severity.MODERATE,
                "",
                Participant("anna"),
            )
    return system


def test_a_user_is_added_changed_and_disabled(tmp_path):
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    assert (
        system.lumbar("users", "add", "anna", "--role", "reader", stdin=PASSWORD).stdout
        == "anna may sign in as reader.\n"
    )
    assert_one_line(
        system.lumbar("users", "add", "anna", "--role", "reader", stdin=PASSWORD), 1, "already"
    )
    assert_one_line(
        system.lumbar("users", "add", "ben", "--role", "reader", stdin="short\n"),
        1,
        "12 to 1024 characters",
    )
    assert system.lumbar("users", "role", "anna", "operator").returncode == 0
    assert system.lumbar("users", "password", "anna", stdin="another good one\n").returncode == 0
    assert system.lumbar("users", "disable", "anna").returncode == 0
    (row,) = rows_of(system.lumbar("users", "list", "--format", "csv"))
    assert (row["name"], row["role"], bool(row["disabled_at"])) == ("anna", "operator", True)
    assert_one_line(
        system.lumbar("users", "role", "nobody", "viewer"), 1, "there is no user 'nobody'"
    )
    system.lumbar("audit")
    lines = rows_of(system.lumbar("audit", "--format", "csv"))
    assert [(line["event"], line["object"]) for line in lines] == [
        ("user.added", "user anna"),
        ("user.role_set", "user anna"),
        ("user.password_set", "user anna"),
        ("user.disabled", "user anna"),
        ("users.seen", ""),
        ("audit.seen", ""),
    ]
    for line in lines:
        assert line["actor"].startswith("command line, user ")
        assert (line["address"], line["outcome"]) == (socket.gethostname(), "success")


def test_the_last_administrator_is_locked_out_only_if_that_is_said(tmp_path):
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    for name in ("anna", "ben"):
        added = system.lumbar("users", "add", name, "--role", "admin", stdin=PASSWORD)
        assert added.returncode == 0
    assert system.lumbar("users", "role", "ben", "viewer").returncode == 0
    for command in (("role", "anna", "viewer"), ("disable", "anna")):
        refused = system.lumbar("users", *command)
        assert_one_line(refused, 1, "anna is the last enabled administrator")
        assert "--yes" in refused.stderr
    (anna, _) = rows_of(system.lumbar("users", "list", "--format", "csv"))
    assert (anna["role"], anna["disabled_at"]) == ("admin", "")
    assert system.lumbar("users", "disable", "anna", "--yes").returncode == 0
    assert system.lumbar("users", "disable", "anna", "--undo").returncode == 0
    assert system.lumbar("users", "role", "anna", "viewer", "--yes").returncode == 0


def test_at_a_terminal_the_last_administrators_end_is_asked_about(tmp_path, monkeypatch):
    """In this process, because the question is asked at a terminal only."""
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, abort: asked.append((text, abort)))
    changes = []

    def change(even_last):
        changes.append(even_last)
        if not even_last:
            raise LastAdministrator("anna is the last enabled administrator")

    users._even_if_last(change, yes=False)
    assert changes == [False, True]
    assert asked == [("anna is the last enabled administrator. Do it all the same?", True)]


def test_a_common_password_is_refused_on_the_command_line(tmp_path):
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    common = system.lumbar("users", "add", "anna", "--role", "admin", stdin="password1234\n")
    assert_one_line(common, 1, "would be guessed soon")


def test_the_worklist_is_paged_and_a_read_study_leaves_it(hospital):
    page = hospital.lumbar("worklist", "--limit", "2", "--format", "json")
    first = [row["study_instance_uid"] for row in json.loads(page.stdout)]
    assert first[0] == f"{ROOT}.2"
    place = page.stderr.split("--after ")[1].strip()
    rest = rows_of(hospital.lumbar("worklist", "--after", place, "--format", "csv"))
    assert len(rest) == 1
    assert hospital.lumbar("mark-read", f"{ROOT}.2").returncode == 0
    assert len(rows_of(hospital.lumbar("worklist", "--format", "csv"))) == 2
    assert len(rows_of(hospital.lumbar("worklist", "--all", "--format", "csv"))) == 3
    assert hospital.lumbar("mark-read", f"{ROOT}.2", "--undo").returncode == 0
    assert (
        rows_of(hospital.lumbar("worklist", "--search", "p2", "--format", "csv"))[0][
            "study_instance_uid"
        ]
        == f"{ROOT}.2"
    )


def test_the_audit_trail_is_printed_as_dicom_messages(hospital):
    assert hospital.lumbar("study", f"{ROOT}.2").returncode == 0
    assert hospital.lumbar("findings").returncode == 0
    lines = hospital.lumbar("audit", "--xml").stdout.splitlines()
    assert 'csd-code="finding.reviewed"' in lines[0]
    assert f'ParticipantObjectID="{ROOT}.2"' in lines[0]
    study, findings = lines[-2:]
    assert 'csd-code="study.seen"' in study
    assert f'ParticipantObjectID="{ROOT}.2"' in study
    assert 'csd-code="findings.seen"' in findings


def test_reviewed_findings_are_written_as_labels(hospital, tmp_path):
    out = tmp_path / "labels"
    done = hospital.lumbar("export-labels", str(out))
    assert done.stdout == "1 reviewed findings of 1 studies, 1 images.\n", done.stderr
    assert f"{ROOT}.2," in (out / "train.csv").read_text()
    assert len(list(out.rglob("*.dcm"))) == 1
    assert_one_line(
        hospital.lumbar("export-labels", str(out)), 2, "exists already; name a new folder"
    )
