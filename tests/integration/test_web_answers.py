"""What every response has: headers, a form for errors, bounds, and an audit row beforehand."""

import csv
import io
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from prometheus_client.parser import text_string_to_metric_families

from db import audit, reviews, studies
from db.database import DatabaseUnavailable
from db.models import AuditEvent, UserRole
from lumbar.reports.finding_records import FINDING_COLUMNS
from lumbar.settings import Settings
from lumbar.spine.anatomy import Severity
from tests.factories.analyses import CANAL
from tests.factories.instances import ROOT
from tests.integration.site_with_studies import (
    ARRIVING_UID,
    DEAD_JOB,
    FAILED_UID,
    SEVERE_UID,
    WAITING_JOB,
    add_studies,
    all_rows,
    open_site,
)
from tests.integration.web_client import WebClient, audit_rows, browser_client, token_client
from web import pages
from web.app import MAX_BODY, create_app

SLICE = f"/studies/{SEVERE_UID}/instances/{ROOT}.1.1.1/frames"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = open_site(
        tmp_path_factory.mktemp("answers"), destinations={"pacs": "dicom://PACS@127.0.0.1:1"}
    )
    add_studies(site)
    yield site
    site.database.close()


@pytest.fixture
def app(site):
    return create_app(site)


@pytest.fixture
def admin(app) -> WebClient:
    return browser_client(app, UserRole.ADMIN)


@pytest.fixture
def program(app) -> WebClient:
    return token_client(app, UserRole.ADMIN)


def test_every_answer_tells_the_browser_how_to_treat_it(admin, monkeypatch):
    def fault(session):
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(pages.statistics, "in_flight", fault)
    broken = WebClient(admin.app, Cookie=f"lumbar_session={admin.cookies['lumbar_session']}")
    broken._transport.raise_server_exceptions = False
    answers = {
        200: [
            admin.get(path)
            for path in ("/", "/static/page.css", "/metrics", "/findings.csv", f"{SLICE}/0")
        ],
        303: [WebClient(admin.app).get("/")],
        400: [admin.get("/?q=%00")],
        401: [WebClient(admin.app).get("/api/v1/jobs")],
        403: [admin.post("/password")],
        404: [
            admin.get("/nowhere"),
            admin.get("/static/nothing.css"),
            admin.get("/api/v1/nowhere"),
        ],
        405: [admin.delete("/"), admin.delete("/api/v1/worklist")],
        411: [admin.post("/sign-in", content=iter([b"name=a"]))],
        413: [admin.post("/sign-in", content=bytes(MAX_BODY + 1))],
        422: [admin.get("/api/v1/worklist?limit=0"), admin.get("/?state=lost")],
        500: [broken.get("/system")],
    }
    for status, of_status in answers.items():
        for answer in of_status:
            assert answer.status_code == status, answer.url
            headers = answer.headers
            policy = dict(
                part.split(" ", 1) for part in headers["content-security-policy"].split("; ")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["form-action"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert (
                headers["cross-origin-opener-policy"]
                == headers["cross-origin-resource-policy"]
                == "same-origin"
            )
            shared = headers["cache-control"]
            assert shared == (
                "private, max-age=3600" if answer.url.path.startswith("/studies/") else "no-store"
            )
            assert "access-control-allow-origin" not in headers
            assert "Doe" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/studies/1.2.3", {}, 404),
        ("GET", f"/studies/{'9' * 5000}", {}, 422),
        ("GET", "/studies/..%2f..%2fetc%2fpasswd", {}, 404),
        ("GET", "/studies?after=1.2.3", {}, 404),
        ("GET", "/worklist?after=1.2.3", {}, 404),
        ("GET", "/findings?after=4711", {}, 404),
        ("GET", "/studies/1.2.3/deliveries", {}, 404),
        ("PUT", "/studies/1.2.3/read", {"json": {}}, 404),
        ("POST", "/studies/1.2.3/requeue", {}, 404),
        ("POST", "/studies/1.2.3/complete", {}, 404),
        ("POST", "/findings/4711/reviews", {"json": {"severity": "severe"}}, 404),
        ("POST", "/jobs/4711/retry", {}, 404),
        ("DELETE", "/worklist", {}, 405),
        ("POST", f"/studies/{SEVERE_UID}/complete", {}, 409),
        ("POST", "/jobs/1/cancel", {}, 409),
        ("POST", "/jobs/1/resend", {}, 409),
        ("POST", "/findings/1/reviews", {"content": bytes(MAX_BODY + 1)}, 413),
        ("POST", "/findings/1/reviews", {"content": iter([b"{}"])}, 411),
        (
            "POST",
            "/findings/1/reviews",
            {"content": b"{", "headers": {"content-type": "application/json"}},
            422,
        ),
        (
            "POST",
            "/findings/1/reviews",
            {"content": b"[" * 9999, "headers": {"content-type": "application/json"}},
            400,
        ),
        (
            "POST",
            "/findings/1/reviews",
            {"content": b'"\xff"', "headers": {"content-type": "application/json"}},
            400,
        ),
        ("POST", "/findings/1/reviews", {"json": {"severity": "SECRET"}}, 422),
        ("POST", "/findings/1/reviews", {"json": {"severity": "severe", "more": 1}}, 422),
        ("POST", "/findings/1/reviews", {"json": {"severity": "severe", "comment": "a\0"}}, 422),
        (
            "POST",
            "/findings/1/reviews",
            {"json": {"severity": "severe", "comment": "a" * 2001}},
            422,
        ),
        ("POST", f"/findings/{10**30}/reviews", {"json": {"severity": "severe"}}, 422),
        ("POST", f"/jobs/{10**30}/retry", {}, 422),
        ("GET", f"/findings?after={10**30}", {}, 422),
        ("GET", "/worklist?limit=501", {}, 422),
        *(
            ("GET", f"/worklist?since={since}", {}, 422)
            for since in ("SECRET", "1.5", "0001-01-01T00:00:00%2B14:00")
        ),
        ("GET", "/worklist?q=SECRET%00", {}, 400),
        ("GET", "/studies/SECRET%00", {}, 400),
    ],
)
def test_an_error_of_the_api_is_a_problem_in_words_that_repeats_nothing(
    program, method, path, options, status
):
    answer = program.request(method, f"/api/v1{path}", **options)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    assert set(told) == {"type", "title", "status", "detail"}
    assert "SECRET" not in answer.text


@pytest.fixture
def in_tokyo(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


TOKYO = timezone(timedelta(hours=9))
LISTS = ["/api/v1/worklist", "/api/v1/studies", "/api/v1/findings", "/", "/studies", "/findings"]


def is_listed(answer) -> bool:
    """Whether an answer of a list, a page or the API's, has a row."""
    assert answer.status_code == 200
    if answer.headers["content-type"] == "application/json":
        return bool(answer.json()["rows"])
    return "Test" in answer.text


@pytest.mark.parametrize("path", LISTS)
def test_a_time_without_an_offset_is_the_machine_s_where_no_zone_is_set(admin, in_tokyo, path):
    for minutes, listed in ((-60, True), (60, False)):
        since = datetime.now(TOKYO).replace(tzinfo=None) + timedelta(minutes=minutes)
        assert is_listed(admin.get(path, params={"since": since.isoformat()})) == listed


@pytest.mark.parametrize("path", LISTS)
def test_a_time_without_an_offset_is_the_site_s_wherever_the_machine_is(site, admin, path):
    settings = Settings(home=site.settings.home, time_zone="Asia/Tokyo")
    admin.app.state.site = replace(site, settings=settings)
    now = datetime.now(TOKYO)
    for hours, listed in ((-1, True), (1, False)):
        then = now + timedelta(hours=hours)
        for since in (then.replace(tzinfo=None), then, then.astimezone(UTC)):
            assert is_listed(admin.get(path, params={"since": since.isoformat()})) == listed
    yesterday, tomorrow = ((now + timedelta(days=n)).date().isoformat() for n in (-1, 1))
    assert is_listed(admin.get(path, params={"since": yesterday}))
    assert not is_listed(admin.get(path, params={"since": tomorrow}))


@pytest.mark.parametrize("path", ["/api/v1/findings", "/findings"])
def test_until_is_included_to_the_end_of_its_day(admin, path):
    today = datetime.now(UTC).astimezone().date()
    asked = {"since": "2h", "until": today.isoformat()}
    assert is_listed(admin.get(path, params=asked))
    before = today - timedelta(days=1)
    assert not is_listed(admin.get(path, params={"until": before.isoformat()}))
    assert not is_listed(admin.get(path, params={"until": "2h"}))


@pytest.mark.parametrize("path", [*LISTS, "/findings.csv"])
@pytest.mark.parametrize("written", ["yesterday", "2026-13-01", "-5h", "1700000000"])
def test_a_time_that_is_none_is_refused_in_words_everywhere(admin, path, written):
    for name in ("since", "until") if "findings" in path else ("since",):
        answer = admin.get(path, params={name: written})
        assert answer.status_code == 422
        assert "write a date (2026-11-16)" in answer.text
        assert name in answer.text.lower()
        if path.startswith("/api/"):
            assert answer.headers["content-type"] == "application/problem+json"
        else:
            assert 'role="alert"' in answer.text


def test_the_page_of_findings_keeps_a_wrong_time_to_be_corrected(admin):
    page = admin.get("/findings?since=yesterday&severity=severe").text
    assert re.search('name="since" value="yesterday"[^>]*aria-invalid="true"', page)
    assert 'value="severe" checked' in page


API_ROUTES = [
    *(("GET", path) for path in ("/worklist", "/studies", "/findings", "/jobs", "/bundles")),
    ("GET", f"/studies/{SEVERE_UID}"),
    ("GET", f"/studies/{SEVERE_UID}/deliveries"),
    ("PUT", f"/studies/{SEVERE_UID}/read"),
    ("POST", f"/studies/{SEVERE_UID}/requeue"),
    ("POST", f"/studies/{SEVERE_UID}/complete"),
    ("POST", "/findings/1/reviews"),
    *(("POST", f"/jobs/1/{act}") for act in ("retry", "cancel", "resend")),
]


@pytest.mark.parametrize(("method", "path"), API_ROUTES)
def test_a_parameter_that_the_api_does_not_have_is_refused_by_its_name(site, program, method, path):
    before = all_rows(site)
    answer = program.request(method, f"/api/v1{path}?severty=severe")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "severty: there is no such parameter"
    assert all_rows(site) == before


def test_no_route_of_the_api_is_left_out_above(app):
    described = app.openapi()["paths"]
    assert len(API_ROUTES) == sum(map(len, described.values()))


@pytest.mark.parametrize("path", ["/findings", "/findings.csv"])
def test_a_parameter_that_the_findings_do_not_have_is_refused_by_its_name(admin, path):
    answer = admin.get(f"{path}?severty=severe")
    assert answer.status_code == 422
    assert "Severty: there is no such parameter" in answer.text


def test_a_renamed_field_is_answered_under_both_names_and_the_old_one_is_deprecated(app, program):
    detail = program.get(f"/api/v1/studies/{SEVERE_UID}").json()
    assert detail["caveats"] == detail["doubts"] != []
    assert detail["quarantined"] == detail["set_aside"]
    (severe,) = program.get("/api/v1/findings?severity=severe").json()["rows"]
    for finding in (*detail["findings"], severe):
        assert finding["point"] == finding["place"]
    assert severe["point"]["column"] == 10.5
    schemas = app.openapi()["components"]["schemas"]
    for schema, name in (
        ("StudyDetailModel", "doubts"),
        ("StudyDetailModel", "set_aside"),
        ("FindingModel", "place"),
        ("StudyFindingModel", "place"),
    ):
        assert schemas[schema]["properties"][name]["deprecated"] is True


def test_the_page_its_csv_and_the_api_list_the_same_findings(admin, site):
    with site.database.transaction() as session:
        number = reviews.finding_ids(session, studies.find(session, SEVERE_UID).id)[CANAL]
        reviews.add_review(session, number, Severity.MODERATE, "", "anna")
    for asked in ("", "?severity=severe", "?level=l4_l5&since=1d", "?until=1d"):
        text = admin.get(f"/findings.csv{asked}").content.decode("utf-8-sig")
        table = list(csv.DictReader(io.StringIO(text, newline="")))
        page = admin.get(f"/api/v1/findings{asked or '?'}&limit=500").json()
        rows = page["rows"]
        assert page["next_after"] is None
        assert {key_of(row) for row in rows} == {key_of(row) for row in table}
        assert len(rows) == len(table)
        shown = admin.get(f"/findings{asked}").text
        assert shown.count('<tr><th scope="row">') == min(len(rows), 50)
    text = admin.get("/findings.csv").content
    assert text.startswith(b"\xef\xbb\xbfrow_id,finding_id,received_at,")
    table = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline="")))
    assert len(table) == 75  # of the severe study, the failed one and the refused one
    assert list(table[0]) == list(FINDING_COLUMNS)
    severe = next(row for row in table if row["severity"] == "severe")
    assert severe["row_id"] == CANAL.row_id(SEVERE_UID)
    assert (severe["reviewed_severity"], severe["reviewer"]) == ("moderate", "anna")
    assert (severe["patient_identifier"], severe["trained_on"]) == ("P1", "clinical")
    assert severe["caveats"] == "the border to the sacrum looks transitional"
    (failed,) = {row["reason"] for row in table if row["study_instance_uid"] == FAILED_UID}
    assert failed == "failed: the disk is full"


def key_of(row):
    return row["study_instance_uid"], row["condition"], row["level"], row["severity"] or ""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/1.2.3", 404),
        ("/studies/1.2.3/series", 404),
        ("/studies/..%2f..%2fetc%2fpasswd", 404),
        ("/studies/%2e%2e%2fusers", 404),
        (f"/studies/{SEVERE_UID}/..%2f..%2fusers", 404),
        ("/studies?after=1.2.3", 404),
        ("/?after=1.2.3", 404),
        ("/findings?after=4711", 404),
        ("/audit?uid=1.2.3", 404),
        (f"{SLICE}/1", 404),
        (f"{SLICE}/-1", 404),
        (f"{SLICE}/{10**30}", 404),
        (f"{SLICE}/x", 422),
        (f"/studies/{SEVERE_UID}/instances/..%2f..%2f..%2flumbar.sqlite/frames/0", 404),
        (f"/studies/{ARRIVING_UID}/instances/{ROOT}.1.1.1/frames/0", 404),  # of another study
        ("/static/..%2fapp.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/static//etc/passwd", 404),
        ("/static/..%2f..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/static/%5c..%5capp.py", 404),
        ("/static/", 404),
        ("/docs", 404),
        ("/redoc", 404),
        ("/openapi.json", 404),
        (f"/findings?after={10**30}", 422),
        ("/findings?severity=worst", 422),
        ("/jobs?state=lost", 422),
        ("/?q=" + "a" * 201, 422),
    ],
)
def test_what_is_not_there_is_said_so_on_a_page(admin, path, status):
    answer = admin.get(path)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "root:" not in answer.text


def test_a_search_form_s_empty_choices_narrow_nothing(admin):
    for path in ("/", "/studies"):
        assert admin.get(f"{path}?q=&state=&scanner=").text.count("data-study") == 4
        assert admin.get(f"{path}?q=&state=failed&scanner=").text.count("data-study") == 1


SEEN = {
    "/": ("worklist.seen", None),
    "/studies": ("studies.seen", None),
    f"/studies/{SEVERE_UID}": ("study.seen", 1),
    f"/studies/{SEVERE_UID}/series": ("images.seen", 1),
    f"{SLICE}/0": ("images.seen", 1),
    "/findings": ("findings.seen", None),
    "/findings.csv": ("findings.exported", None),
    "/reviews.zip": ("reviews.exported", None),
    "/api/v1/worklist": ("worklist.seen", None),
    "/api/v1/studies": ("studies.seen", None),
    f"/api/v1/studies/{SEVERE_UID}": ("study.seen", 1),
    f"/api/v1/studies/{SEVERE_UID}/deliveries": ("study.seen", 1),
    "/api/v1/findings": ("findings.seen", None),
}


@pytest.mark.parametrize("path", SEEN)
def test_a_look_is_in_the_trail_once_in_a_while_and_by_ids_only(site, admin, path):
    event, study = SEEN[path]
    before = len(audit_rows(site))
    for _ in range(3):
        assert admin.get(path).status_code == 200
    assert audit_rows(site)[before:] == [(event, "admin", study)]
    with site.database.reading() as session:
        assert session.get_one(AuditEvent, before + 1).detail == {}


@pytest.mark.parametrize("path", SEEN)
def test_what_cannot_be_noted_is_not_shown(site, admin, monkeypatch, path):
    def away(*args, **more):
        raise DatabaseUnavailable("the database does not answer (OperationalError)")

    monkeypatch.setattr(audit, "note", away)
    answer = admin.get(path)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "the database does not answer" in answer.text.lower()
    assert "Test" not in answer.text
    assert SEVERE_UID not in answer.text
    monkeypatch.undo()
    assert admin.get(path).status_code == 200


def test_what_cannot_be_noted_is_not_done(site, admin, program, monkeypatch):
    def away(*args, **more):
        raise DatabaseUnavailable("the database does not answer (OperationalError)")

    before = all_rows(site)
    monkeypatch.setattr(audit, "note", away)
    for path in (
        f"/studies/{SEVERE_UID}/read",
        f"/studies/{SEVERE_UID}/requeue",
        f"/jobs/{DEAD_JOB}/retry",
    ):
        assert admin.submit(path).status_code == 503
    for path in (f"/studies/{SEVERE_UID}/requeue", f"/jobs/{WAITING_JOB}/cancel"):
        assert program.post(f"/api/v1{path}").status_code == 503
    assert (
        program.post("/api/v1/findings/1/reviews", json={"severity": "severe"}).status_code == 503
    )
    monkeypatch.undo()
    assert all_rows(site) == before


def test_metrics_are_read_by_prometheus_and_tell_how_it_stands(site, app):
    answer = WebClient(app).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    told = {
        (s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples
    }
    assert told["lumbar_studies", "receiving"] == 1
    assert told["lumbar_studies", "queued"] == 0
    assert told["lumbar_jobs", "analyse", "dead"] == 1
    assert told["lumbar_jobs", "deliver", "pending"] == 1
    assert told["lumbar_queue_age_seconds", "deliver"] >= 0
    assert told["lumbar_last_hour", "instances_received"] == 4
    assert told["lumbar_last_hour", "reports_delivered"] == 1
    assert told["lumbar_last_hour", "studies_failed"] == 1
    assert told["lumbar_stage_seconds", "0.95", "last_image_to_delivery"] >= 0
    assert 0 < told["lumbar_disk_fill_ratio",] < 1


def test_readiness_is_of_the_database_and_the_disk(site, app, monkeypatch):
    stranger = WebClient(app)
    assert stranger.get("/readyz").text == "ready\n"
    monkeypatch.setattr("lumbar.store.files.Store.fill_ratio", lambda self: 0.99)
    assert (stranger.get("/readyz").status_code, stranger.get("/healthz").status_code) == (503, 200)
    monkeypatch.undo()

    def away(session):
        raise DatabaseUnavailable("the database does not answer (OperationalError)")

    monkeypatch.setattr("db.read_models.metrics.ping", away)
    assert (stranger.get("/readyz").status_code, stranger.get("/healthz").status_code) == (503, 200)
    monkeypatch.setattr("db.read_models.metrics.figures", away)
    assert stranger.get("/metrics").status_code == 503
