"""What every response has: headers, a format for errors, limits, and an audit row written first."""

import csv
import io
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from prometheus_client.parser import text_string_to_metric_families

from db import audit, reviews, studies
from db.audit import Participant
from db.database import DatabaseUnavailable
from db.models import AuditEvent, UserRole
from db.read_models import metrics
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
from tests.system import wait_until
from web import monitoring, pages
from web.app import MAX_FORM, MAX_JSON, create_app

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


def test_every_response_has_the_security_headers(admin, monkeypatch):
    def fault(session):
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(pages.statistics, "in_flight", fault)
    failing_client = WebClient(
        admin.app, Cookie="; ".join(f"{name}={value}" for name, value in admin.cookies.items())
    )
    failing_client._transport.raise_server_exceptions = False
    responses = {
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
        413: [admin.post("/sign-in", content=bytes(MAX_FORM + 1))],
        422: [admin.get("/api/v1/worklist?limit=0"), admin.get("/?state=lost")],
        500: [failing_client.get("/system")],
    }
    for status, group in responses.items():
        for response in group:
            assert response.status_code == status, response.url
            headers = response.headers
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
                "private, max-age=3600" if response.url.path.startswith("/studies/") else "no-store"
            )
            assert "access-control-allow-origin" not in headers
            assert "Doe" not in response.text


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
        ("POST", "/findings/1/reviews", {"content": bytes(MAX_FORM + 1)}, 413),
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
def test_an_api_error_is_a_problem_document_that_repeats_no_input(
    program, method, path, options, status
):
    response = program.request(method, f"/api/v1{path}", **options)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert set(problem) == {"type", "title", "status", "detail"}
    assert "SECRET" not in response.text


@pytest.fixture
def in_tokyo(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


TOKYO = timezone(timedelta(hours=9))
LISTS = ["/api/v1/worklist", "/api/v1/studies", "/api/v1/findings", "/", "/studies", "/findings"]


def is_listed(response) -> bool:
    """Whether the response for a list, from a page or the API, has a row."""
    assert response.status_code == 200
    if response.headers["content-type"] == "application/json":
        return bool(response.json()["rows"])
    return "Test" in response.text


@pytest.mark.parametrize("path", LISTS)
def test_a_time_without_an_offset_is_in_the_machines_zone_unless_one_is_set(admin, in_tokyo, path):
    for minutes, expected in ((-60, True), (60, False)):
        since = datetime.now(TOKYO).replace(tzinfo=None) + timedelta(minutes=minutes)
        assert is_listed(admin.get(path, params={"since": since.isoformat()})) == expected


@pytest.mark.parametrize("path", LISTS)
def test_a_time_without_an_offset_is_in_the_sites_zone_wherever_the_machine_is(site, admin, path):
    settings = Settings(home=site.settings.home, time_zone="Asia/Tokyo")
    admin.app.state.site = replace(site, settings=settings)
    now = datetime.now(TOKYO)
    for hours, expected in ((-1, True), (1, False)):
        moment = now + timedelta(hours=hours)
        for since in (moment.replace(tzinfo=None), moment, moment.astimezone(UTC)):
            assert is_listed(admin.get(path, params={"since": since.isoformat()})) == expected
    yesterday, tomorrow = ((now + timedelta(days=n)).date().isoformat() for n in (-1, 1))
    assert is_listed(admin.get(path, params={"since": yesterday}))
    assert not is_listed(admin.get(path, params={"since": tomorrow}))


@pytest.mark.parametrize("path", ["/api/v1/findings", "/findings"])
def test_until_is_included_to_the_end_of_its_day(admin, path):
    today = datetime.now(UTC).astimezone().date()
    filters = {"since": "2h", "until": today.isoformat()}
    assert is_listed(admin.get(path, params=filters))
    before = today - timedelta(days=1)
    assert not is_listed(admin.get(path, params={"until": before.isoformat()}))
    assert not is_listed(admin.get(path, params={"until": "2h"}))


@pytest.mark.parametrize("path", [*LISTS, "/findings.csv"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "-5h", "1700000000"])
def test_an_invalid_time_is_refused_with_a_message_everywhere(admin, path, text):
    for name in ("since", "until") if "findings" in path else ("since",):
        response = admin.get(path, params={name: text})
        assert response.status_code == 422
        assert "write a date (2026-11-16)" in response.text
        assert name in response.text.lower()
        if path.startswith("/api/"):
            assert response.headers["content-type"] == "application/problem+json"
        else:
            assert 'role="alert"' in response.text


def test_the_page_of_findings_keeps_an_invalid_time_for_correction(admin):
    page = admin.get("/findings?since=yesterday&severity=severe").text
    assert re.search('name="since" value="yesterday"[^>]*aria-invalid="true"', page)
    assert 'value="severe" checked' in page


API_ROUTES = [
    *(
        ("GET", path)
        for path in ("/worklist", "/studies", "/findings", "/jobs", "/bundles", "/destinations")
    ),
    ("GET", "/worklist/counts"),
    ("GET", f"/studies/{SEVERE_UID}"),
    ("GET", f"/studies/{SEVERE_UID}/deliveries"),
    ("GET", f"/studies/{SEVERE_UID}/quarantined"),
    ("GET", "/quarantined"),
    ("POST", f"/studies/{SEVERE_UID}/correct"),
    ("POST", "/quarantined/1/release"),
    ("DELETE", "/quarantined/1"),
    ("PUT", f"/studies/{SEVERE_UID}/read"),
    ("POST", f"/studies/{SEVERE_UID}/requeue"),
    ("POST", f"/studies/{SEVERE_UID}/complete"),
    ("POST", "/findings/1/reviews"),
    *(("POST", f"/jobs/1/{act}") for act in ("retry", "cancel", "resend")),
    *(("POST", f"/destinations/pacs/{act}") for act in ("retry", "cancel", "reroute")),
]


@pytest.mark.parametrize(("method", "path"), API_ROUTES)
def test_a_parameter_that_the_api_does_not_have_is_refused_by_its_name(site, program, method, path):
    before = all_rows(site)
    response = program.request(method, f"/api/v1{path}?severty=severe")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "severty: there is no such parameter"
    assert all_rows(site) == before


def test_every_api_route_is_covered_above(app):
    described = app.openapi()["paths"]
    assert len(API_ROUTES) == sum(map(len, described.values()))


@pytest.mark.parametrize("path", ["/findings", "/findings.csv"])
def test_a_parameter_that_the_findings_do_not_have_is_refused_by_its_name(admin, path):
    response = admin.get(f"{path}?severty=severe")
    assert response.status_code == 422
    assert "Severty: there is no such parameter" in response.text


def test_parameters_are_judged_after_the_sign_in(app):
    nobody = WebClient(app)
    assert nobody.get("/api/v1/findings?severty=severe").status_code == 401
    page = nobody.get("/findings?severty=severe")
    assert (page.status_code, page.headers["location"].partition("?")[0]) == (303, "/sign-in")


@pytest.mark.parametrize("query", ["since=bad&since=2026-11-16", "limit=1&limit=2"])
def test_a_second_value_of_a_parameter_with_one_is_refused(program, query):
    response = program.get(f"/api/v1/findings?{query}")
    assert response.status_code == 422
    assert response.json()["detail"].endswith("it can have one value only")
    assert program.get("/api/v1/findings?severity=severe&severity=moderate").status_code == 200


@pytest.mark.parametrize(
    "path", ["/findings?severity=&after=&since=", "/jobs?state=&kind=", "/studies?state=&after="]
)
def test_an_empty_parameter_is_none(program, path):
    assert program.get(f"/api/v1{path}").status_code == 200


def test_a_renamed_field_is_returned_under_both_names_and_the_old_one_is_deprecated(app, program):
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
        reviews.add_review(session, number, Severity.MODERATE, "", Participant("anna"))
    for query in ("", "?severity=severe", "?level=l4_l5&since=1d", "?until=1d"):
        text = admin.get(f"/findings.csv{query}").content.decode("utf-8-sig")
        table = list(csv.DictReader(io.StringIO(text, newline="")))
        page = admin.get(f"/api/v1/findings{query or '?'}&limit=500").json()
        rows = page["rows"]
        assert page["next_after"] is None
        assert {key_of(row) for row in rows} == {key_of(row) for row in table}
        assert len(rows) == len(table)
        page_text = admin.get(f"/findings{query}").text
        assert page_text.count('<tr><th scope="row">') == min(len(rows), 50)
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
def test_a_missing_resource_is_reported_on_a_page(admin, path, status):
    response = admin.get(path)
    assert response.status_code == status
    assert 'role="alert"' in response.text
    assert "root:" not in response.text


def test_empty_choices_of_a_search_form_filter_nothing(admin):
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
def test_a_view_is_audited_once_per_period_an_export_each_time_by_ids_only(site, admin, path):
    event, study = SEEN[path]
    before = len(audit_rows(site))
    for _ in range(3):
        assert admin.get(path).status_code == 200
    times = 3 if event.endswith(".exported") else 1
    # the first before it is shown, those that follow soon after
    wait_until(lambda: len(audit_rows(site)) >= before + times, 10, lambda: str(audit_rows(site)))
    assert audit_rows(site)[before:] == [(event, "admin", study)] * times
    with site.database.reading() as session:
        assert session.get_one(AuditEvent, before + 1).detail == {}


@pytest.mark.parametrize("path", SEEN)
def test_a_view_that_cannot_be_audited_is_refused(site, admin, monkeypatch, path):
    def unavailable(*args, **more):
        raise DatabaseUnavailable("the database does not answer (OperationalError)")

    monkeypatch.setattr(audit, "note", unavailable)
    response = admin.get(path)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert "the database does not answer" in response.text.lower()
    assert "Test" not in response.text
    assert SEVERE_UID not in response.text
    monkeypatch.undo()
    assert admin.get(path).status_code == 200


def test_an_action_that_cannot_be_audited_is_refused(site, admin, program, monkeypatch):
    def unavailable(*args, **more):
        raise DatabaseUnavailable("the database does not answer (OperationalError)")

    before = all_rows(site)
    monkeypatch.setattr(audit, "note", unavailable)
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


@pytest.mark.parametrize(
    ("size", "kind", "status"),
    [
        (MAX_FORM, "application/x-www-form-urlencoded", 401),
        (MAX_FORM + 1, "application/x-www-form-urlencoded", 413),
        (MAX_FORM + 1, " application/x-www-form-urlencoded", 413),
        (MAX_FORM + 1, "multipart/form-data; boundary=B", 413),
        (MAX_FORM + 1, "application/json", 401),
        (MAX_JSON + 1, "application/json", 413),
    ],
)
def test_forms_may_be_less_large_than_json(app, size, kind, status):
    response = WebClient(app).post("/sign-in", content=b"&" * size, headers={"Content-Type": kind})
    assert response.status_code == status


def test_prometheus_metrics_show_the_state_of_the_system(site, app):
    response = WebClient(app).get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(response.text))
    assert all(family.documentation for family in families)
    values = {
        (s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples
    }
    assert values["lumbar_studies", "receiving"] == 1
    assert values["lumbar_studies", "queued"] == 0
    assert values["lumbar_jobs", "analyse", "dead"] == 1
    assert values["lumbar_jobs", "deliver", "pending"] == 1
    assert values["lumbar_queue_age_seconds", "deliver"] >= 0
    assert values["lumbar_last_hour", "instances_received"] == 4
    assert values["lumbar_last_hour", "reports_delivered"] == 1
    assert values["lumbar_last_hour", "studies_failed"] == 1
    assert values["lumbar_stage_seconds", "0.95", "last_image_to_delivery"] >= 0
    assert 0 < values["lumbar_disk_fill_ratio",] < 1


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_many_who_ask_for_the_state_share_an_answer(app, monkeypatch, path):
    monkeypatch.setattr(monitoring, "KEPT_S", 60)
    asked = []
    for name in ("ping", "figures"):
        original = getattr(metrics, name)
        monkeypatch.setattr(
            metrics, name, lambda *given, o=original: asked.append(given) or o(*given)
        )
    answers = [WebClient(app).get(path) for _ in range(5)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert len(asked) == 1
    monkeypatch.setattr(monitoring, "KEPT_S", 0)
    WebClient(app).get(path)
    assert len(asked) == 2


def test_readiness_depends_on_the_database_and_the_disk(site, app, monkeypatch):
    client = WebClient(app)
    monkeypatch.setattr(monitoring, "KEPT_S", 0)
    assert client.get("/readyz").text == "ready\n"
    monkeypatch.setattr("lumbar.store.files.Store.fill_ratio", lambda self: 0.99)
    assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
    monkeypatch.undo()
    monkeypatch.setattr(monitoring, "KEPT_S", 0)

    def unavailable(session, *_):
        raise DatabaseUnavailable("the database does not answer (OperationalError)")

    monkeypatch.setattr("db.read_models.metrics.ping", unavailable)
    assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
    monkeypatch.setattr("db.read_models.metrics.figures", unavailable)
    assert client.get("/metrics").status_code == 503
