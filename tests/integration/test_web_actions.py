"""Actions on studies, findings and jobs have the same effect by form and by API."""

import re

import pytest
from sqlalchemy import select

from db import audit, deletion, job_lifecycle, studies
from db.audit import Participant
from db.ingest import ingest
from db.leases import LeaseLostError
from db.models import (
    AuditEvent,
    FindingRow,
    Instance,
    Job,
    JobState,
    Patient,
    ReportRow,
    Review,
    Study,
    StudyState,
    Tombstone,
    UserRole,
)
from lumbar.audit_messages import Outcome
from lumbar.spine.anatomy import Severity
from tests.factories.analyses import end
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.site_with_studies import (
    ARRIVING_UID,
    DEAD_JOB,
    DELIVERED_JOB,
    FAILED_UID,
    SEVERE_UID,
    WAITING_JOB,
    add_studies,
)
from tests.integration.web_client import (
    WebClient,
    audit_rows,
    browser_client,
    count,
    row,
    token_client,
)
from web.app import create_app

SEVERE_STUDY, FAILED_STUDY, ARRIVING_STUDY = 1, 2, 4
REVIEW = f"/studies/{SEVERE_UID}/findings/1/review"


@pytest.fixture
def app(site):
    add_studies(site)
    return create_app(site)


@pytest.fixture
def admin(app) -> WebClient:
    return browser_client(app, UserRole.ADMIN)


@pytest.fixture(params=["page", "api"])
def act(request, app):
    """Performs an action by form or by API; returns the status that the API responds with."""
    browser, program = browser_client(app, UserRole.ADMIN), token_client(app, UserRole.ADMIN)

    def by_page(path: str) -> int:
        response = browser.submit(path)
        assert response.status_code != 303 or "done=" in response.headers["location"]
        return 200 if response.status_code == 303 else response.status_code

    return (
        by_page
        if request.param == "page"
        else lambda path: program.post(f"/api/v1{path}").status_code
    )


def last(site) -> tuple[str, int | None]:
    event, _, study = audit_rows(site)[-1]
    return event, study


def test_a_study_that_has_ended_is_analysed_again(site, act):
    assert act(f"/studies/{SEVERE_UID}/requeue") == 200
    study = row(site, Study, SEVERE_STUDY)
    assert (study.state, study.revision) == (StudyState.QUEUED, 2)
    assert last(site) == ("study.requeued", SEVERE_STUDY)
    assert act(f"/studies/{SEVERE_UID}/requeue") == 409
    assert act("/studies/1.2.3/requeue") == 404


def test_a_study_is_analysed_without_waiting_for_quiet(site, act):
    assert act(f"/studies/{ARRIVING_UID}/complete") == 200
    assert row(site, Study, ARRIVING_STUDY).state is StudyState.QUEUED
    assert last(site) == ("study.completed", ARRIVING_STUDY)
    assert act(f"/studies/{ARRIVING_UID}/complete") == 409


def test_a_dead_job_is_retried(site, act):
    assert act(f"/jobs/{DEAD_JOB}/retry") == 200
    study = row(site, Study, FAILED_STUDY)
    assert (study.state, study.revision) == (StudyState.QUEUED, 2)
    assert last(site) == ("job.retried", FAILED_STUDY)
    assert act(f"/jobs/{DEAD_JOB}/retry") == 409
    assert act("/jobs/4711/retry") == 404


def test_a_waiting_job_is_cancelled_and_then_sent_again(site, act):
    assert act(f"/jobs/{WAITING_JOB}/resend") == 409
    assert act(f"/jobs/{WAITING_JOB}/cancel") == 200
    assert row(site, Job, WAITING_JOB).state is JobState.CANCELLED
    assert last(site) == ("job.cancelled", SEVERE_STUDY)
    assert act(f"/jobs/{WAITING_JOB}/cancel") == 409
    assert act(f"/jobs/{WAITING_JOB}/resend") == 200
    assert row(site, Job, WAITING_JOB).state is JobState.PENDING


def test_a_delivered_report_is_sent_again_unchanged(site, act):
    report = row(site, Job, DELIVERED_JOB).report_id
    assert act(f"/jobs/{DELIVERED_JOB}/resend") == 200
    job = row(site, Job, DELIVERED_JOB)
    assert (job.state, job.attempts, job.report_id) == (JobState.PENDING, 0, report)
    assert last(site) == ("report.sent_again", SEVERE_STUDY)


def test_an_action_leads_to_a_page_that_confirms_it(admin):
    for path, confirmation in {
        f"/studies/{ARRIVING_UID}/complete": "The study is queued.",
        f"/jobs/{WAITING_JOB}/cancel": "The job is cancelled.",
        f"/studies/{SEVERE_UID}/read": "marked as read",
    }.items():
        assert confirmation in admin.get(admin.submit(path).headers["location"]).text


def reviews_of(site, finding=1):
    with site.database.reading() as session:
        query = select(Review).where(Review.finding_id == finding).order_by(Review.id)
        return [(row.reviewer, row.severity, row.comment) for row in session.scalars(query)]


def test_reviews_are_added_and_the_latest_is_shown(site, app):
    reader, program = browser_client(app, UserRole.READER), token_client(app, UserRole.READER)
    response = reader.submit(
        REVIEW, severity="moderate", comment="seen with <b>Müller</b>", at="here"
    )
    assert (response.status_code, response.headers["location"]) == (
        303,
        f"/studies/{SEVERE_UID}?at=here&done=reviewed",
    )
    page = reader.get(response.headers["location"]).text
    assert "corrected: Moderate" in page
    first = row(site, FindingRow).severity
    again = program.post("/api/v1/findings/1/reviews", json={"severity": first})
    assert again.status_code == 201
    latest = program.get(f"/api/v1/studies/{SEVERE_UID}").json()["reviews"]
    assert [(review["finding_id"], review["severity"], review["agrees"]) for review in latest] == [
        (1, first, True)
    ]
    assert "<i>agreed</i>" in reader.get(f"/studies/{SEVERE_UID}").text
    assert reviews_of(site) == [
        ("reader", Severity.MODERATE, "seen with <b>Müller</b>"),
        ("reader (program)", first, ""),
    ]
    assert row(site, FindingRow).severity == first
    with site.database.reading() as session:
        details = [
            review.detail
            for review in session.scalars(select(AuditEvent))
            if review.event == "finding.reviewed"
        ]
    assert details == [{"finding": 1, "review": 1}, {"finding": 1, "review": 2}]


def test_a_review_counts_on_the_quality_page(admin):
    assert ">0 %<" not in admin.get("/quality").text
    admin.submit(REVIEW, severity="moderate")
    page = admin.get("/quality").text
    assert '<td class="number">1</td><td class="number">0 %</td>' in page
    admin.submit(REVIEW, severity="normal_mild")
    assert '<td class="number">1</td><td class="number">100 %</td>' in admin.get("/quality").text


def test_a_superseded_finding_or_one_of_another_study_is_not_reviewed(site, app, admin):
    program = token_client(app, UserRole.ADMIN)
    for path in (
        f"/studies/{FAILED_UID}/findings/1/review",
        f"/studies/{SEVERE_UID}/findings/4711/review",
    ):
        assert admin.submit(path, severity="severe").status_code == 404
    assert (
        program.post("/api/v1/findings/4711/reviews", json={"severity": "severe"}).status_code
        == 404
    )
    with site.database.transaction() as session:
        studies.supersede_findings(session, SEVERE_STUDY)
    response = admin.submit(REVIEW, severity="severe")
    assert response.status_code == 409
    assert "A later revision has replaced this finding" in response.text
    assert (
        program.post("/api/v1/findings/1/reviews", json={"severity": "severe"}).status_code == 409
    )
    assert reviews_of(site) == []


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"severity": "worst"},
        {"severity": "severe", "comment": "a" * 2001},
        {"severity": "severe", "comment": "\0"},
    ],
)
def test_an_invalid_review_is_refused(site, admin, form):
    assert admin.submit(REVIEW, **form).status_code == 422
    assert reviews_of(site) == []


@pytest.mark.parametrize("way", ["page", "api"])
def test_a_read_study_leaves_the_worklist_and_returns_to_it(site, app, way):
    browser, program = browser_client(app, UserRole.READER), token_client(app, UserRole.READER)
    path = f"/studies/{SEVERE_UID}/read"

    def mark(read: bool) -> None:
        if way == "api":
            assert program.put(f"/api/v1{path}", json={"read": read}).json() == {"done": True}
        else:
            assert browser.submit(path, **({} if read else {"undo": "true"})).status_code == 303

    def on_list() -> bool:
        rows = program.get("/api/v1/worklist").json()["rows"]
        is_unread = SEVERE_UID in [study["study_instance_uid"] for study in rows]
        assert is_unread == (f'data-study="{SEVERE_UID}"' in browser.get("/").text)
        return is_unread

    assert on_list()
    mark(True)
    assert not on_list()
    assert f'data-study="{SEVERE_UID}"' in browser.get("/studies").text
    assert last(site) == ("studies.seen", None)
    mark(False)
    assert on_list()
    assert {"study.read", "study.unread"} <= {event for event, *_ in audit_rows(site)}


def stored_files(site) -> set[str]:
    return {path.name for path in site.store.root.rglob("*.dcm")}


def test_deleting_a_study_leaves_only_a_tombstone_and_its_audit_rows(site, admin):
    admin.submit(REVIEW, severity="severe", comment="MARKER")
    before = stored_files(site)
    with site.database.reading() as session:
        files = [i.file for i in studies.images_in_use(session, SEVERE_STUDY)]
        files += session.scalars(
            select(ReportRow.file).where(ReportRow.study_id == SEVERE_STUDY)
        ).all()
    response = admin.submit(f"/studies/{SEVERE_UID}/delete", reason=" asked by the patient ")
    assert (response.status_code, response.headers["location"]) == (303, "/studies?done=deleted")
    assert len(files) == 2
    assert before - stored_files(site) == {name.rpartition("/")[2] for name in files}
    assert admin.get(f"/studies/{SEVERE_UID}").status_code == 404
    assert [
        count(site, table) for table in (Study, Patient, Instance, FindingRow, ReportRow, Review)
    ] == [3, 3, 3, 0, 0, 0]
    stone = row(site, Tombstone)
    assert (stone.study_instance_uid, stone.study_id, stone.reason, stone.actor) == (
        SEVERE_UID, SEVERE_STUDY, "asked by the patient", "admin",
    )  # fmt: skip
    events = [event for event, _, study in audit_rows(site) if study == SEVERE_STUDY]
    assert events == ["finding.reviewed", "study.deletion_begun", "study.deleted"]
    page = admin.get("/audit", params={"uid": SEVERE_UID}).text
    assert all(event in page for event in events)
    assert admin.submit(f"/studies/{SEVERE_UID}/delete", reason="again").status_code == 404


@pytest.mark.parametrize("reason", [None, "", "  ", "a" * 501])
def test_a_study_is_not_deleted_without_a_reason(site, admin, reason):
    form = {} if reason is None else {"reason": reason}
    assert admin.submit(f"/studies/{SEVERE_UID}/delete", **form).status_code == 409
    assert row(site, Study).images_removed_at is None
    assert count(site, Tombstone) == 0


def test_a_patient_is_deleted_with_the_last_study(site, admin):
    ingest(site.database, site.store, arrival(make_slice(study=5, PatientID="P4")))
    assert (count(site, Study), count(site, Patient)) == (5, 4)
    for number, patients in ((4, 4), (5, 3)):
        assert (
            admin.submit(f"/studies/{ROOT}.{number}/delete", reason="a phantom").status_code == 303
        )
        assert count(site, Patient) == patients


def test_a_study_that_is_sent_again_after_its_deletion_is_a_new_one(site, admin):
    admin.submit(f"/studies/{ARRIVING_UID}/delete", reason="a phantom")
    ingest(site.database, site.store, arrival(make_slice(study=4)))
    assert admin.get(f"/studies/{ARRIVING_UID}").status_code == 200
    with site.database.reading() as session:
        study = studies.find(session, ARRIVING_UID)
    assert (study.id == ARRIVING_STUDY, study.images_removed_at) == (False, None)
    assert [event for event, _, study_id in audit_rows(site) if study_id == study.id] == [
        "study.seen"
    ]
    page = admin.get("/audit", params={"uid": ARRIVING_UID}).text
    assert page.count("study.deleted") == 1


def test_an_image_that_arrives_while_its_study_is_deleted_is_kept(site, admin, monkeypatch):
    unlink = deletion.retention.unlink_removed

    def meanwhile(site, study_id):
        unlink(site, study_id)
        ingest(site.database, site.store, arrival(make_slice(study=1, number=2)))

    monkeypatch.setattr(deletion.retention, "unlink_removed", meanwhile)
    response = admin.submit(f"/studies/{SEVERE_UID}/delete", reason="a phantom")
    assert response.status_code == 409
    assert "arrived during its deletion" in response.text
    assert len(stored_files(site)) == 5  # the others' images, the one that arrived, and the report
    monkeypatch.undo()
    assert admin.submit(f"/studies/{SEVERE_UID}/delete", reason="a phantom").status_code == 303
    assert len(stored_files(site)) == 3


def test_a_worker_analysing_a_deleted_study_writes_nothing(site, admin):
    admin.submit(f"/studies/{ARRIVING_UID}/complete")
    with site.database.transaction() as session:
        claimed = job_lifecycle.claim_analysis(session, lease_s=10)
    assert admin.submit(f"/studies/{ARRIVING_UID}/delete", reason="a phantom").status_code == 303
    with pytest.raises(LeaseLostError), site.database.transaction() as session:
        job_lifecycle.end_analysis(session, claimed, studies.StudyEvent.REFUSED, reason="none")


def test_the_audit_trail_contains_no_comments_reasons_or_patient_data(site, admin):
    admin.submit(REVIEW, severity="severe", comment="MARKER")
    admin.submit(f"/studies/{SEVERE_UID}/requeue")
    admin.submit(f"/jobs/{DEAD_JOB}/retry")
    admin.submit(f"/studies/{FAILED_UID}/read")
    admin.submit(f"/studies/{FAILED_UID}/delete", reason="MARKER")
    admin.post("/sign-in", data={"name": "MARKER", "password": "MARKER"})
    admin.get("/studies?q=MARKER")
    admin.app.state.trail.close()
    with site.database.reading() as session:
        events = session.scalars(select(AuditEvent)).all()
    assert len(events) >= 8
    for event in events:
        assert "MARKER" not in event.actor + str(event.detail)
        assert "Test" not in str(event.detail)
        words = {value for value in event.detail.values() if not isinstance(value, int)}
        assert words <= {"no user has the name"}, event.event


def test_the_connection_to_a_destination_is_tested(admin):
    response = admin.submit("/destinations/pacs/echo")
    assert (response.status_code, 'class="error"' in response.text) == (200, True)
    assert admin.submit("/destinations/nobody/echo").status_code == 404


def test_a_failed_study_that_is_requeued_and_analysed_is_no_longer_failed(site, admin):
    admin.submit(f"/studies/{FAILED_UID}/requeue")
    assert "disk is full" not in admin.get(f"/studies/{FAILED_UID}").text
    end(site, 2, studies.StudyEvent.REFUSED, reason="no lumbar spine was found")
    assert "Not analysable: no lumbar spine was found" in admin.get(f"/studies/{FAILED_UID}").text


def test_the_page_shows_who_from_where_on_what_and_how_often(site, app, admin):
    with site.database.transaction() as session:
        anna = Participant("anna", "10.0.0.7")
        detail = {"token": 9, "why": "expired", "seconds": 60}
        refused = Outcome.REFUSED
        audit.note(session, "token.refused", anna, outcome=refused, times=987, **detail)
        audit.note(session, "study.read", Participant("ben", "10.0.0.8"), study_id=1)
    shown = admin.get("/audit", params={"refused": "true", "address": "10.0.0.7"}).text
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", shown)
    assert cells[1:6] == ["token.refused", "anna", "10.0.0.7", "refused", "987"]
    assert cells[-2:] == ["token 9", "why expired, 987 more in 60 s"]
    assert "10.0.0.8" not in shown
    assert "10.0.0.8" in admin.get("/audit").text
