"""Untrusted texts on pages and in tables for spreadsheets, and never in monitoring output."""

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from markupsafe import escape
from sqlalchemy import select, update

from db import api_tokens, reviews
from db.audit import Participant
from db.models import (
    ApiToken,
    Bundle,
    Explanation,
    FindingRow,
    Instance,
    Job,
    Patient,
    Permission,
    Series,
    StatedAttributes,
    Study,
    User,
    UserRole,
    WebSession,
)
from lumbar.reports.csv_text import cell
from lumbar.spine.anatomy import ALL_FINDINGS, Severity
from tests.factories.accounts import OPERATOR, add_user
from tests.factories.instances import ROOT
from tests.factories.quarantine import send, send_corrected
from tests.integration.site_with_studies import (
    ARRIVING_UID,
    FAILED_UID,
    REFUSED_UID,
    SEVERE_UID,
    add_studies,
    open_site,
)
from tests.integration.web_client import WebClient, browser_client
from web.app import create_app
from web.pages import name_of

PLAIN = "plain words"
HOSTILE = [
    "<script>alert(1)</script>",
    '"></td></table><img src onerror>',
    "'><b onmouseover>",
    '{{ 7*7 }}{% include "me.html" %}',
    "</script><!--",
    "&lt;b&gt;",
]
CORRECTED = 5  # number of a study
CORRECTED_UID = f"{ROOT}.{CORRECTED}"
PAGES = [
    *("/", "/studies", "/findings", "/jobs", "/system", "/users", "/audit", "/quality", "/me"),
    *(f"/studies/{uid}" for uid in (SEVERE_UID, FAILED_UID, REFUSED_UID, ARRIVING_UID)),
    *("/quarantine", f"/studies/{CORRECTED_UID}"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    destinations = dict.fromkeys((PLAIN, *HOSTILE), "dicom://PACS@127.0.0.1:1")
    viewer = "https://viewer.example/?a={accession}&p={patient}"
    site = open_site(tmp_path_factory.mktemp("texts"), destinations=destinations, viewer_url=viewer)
    add_studies(site)
    send_corrected(site.database, site.store, CORRECTED)
    send(site.database, site.store, study=CORRECTED, number=3, PatientName="Third^Name")
    user = add_user(site.database, "reader")
    with site.database.transaction() as session:
        api_tokens.new_token(session, user, "token", {Permission.READ}, 1, OPERATOR)
    yield site
    site.database.close()


@pytest.fixture(scope="module")
def admin(site) -> WebClient:
    return browser_client(create_app(site), UserRole.ADMIN)


def write(site, text: str) -> None:
    """Writes the text wherever a sender or a user may have put one."""
    with site.database.transaction() as session:
        for table, columns in {
            Patient: ["name", "birth_date", "sex"],
            Study: ["accession_number", "study_date", "description", "scanner", "reason"],
            Series: ["description"],
            Bundle: ["name", "version", "preprocessing_version"],
            Explanation: ["text"],
            Job: ["last_error"],
        }.items():
            session.execute(update(table).values(dict.fromkeys(columns, text)))
        for patient in session.scalars(select(Patient)):
            patient.patient_identifier = f"{text}{patient.id}"
        session.execute(update(Instance).where(Instance.id == 1).values(quarantined=text))
        session.execute(update(Instance).values(source=text))
        for number, stated in enumerate(session.scalars(select(StatedAttributes))):
            stated.values = dict.fromkeys(stated.values, f"{text}{number}")
        session.execute(
            update(FindingRow)
            .where(FindingRow.id == 2)
            .values(severity=None, normal_mild=None, reason=text)
        )
        session.scalars(select(User).where(User.id == 1)).one().name = text
        session.scalars(select(ApiToken)).one().name = text
        session.execute(update(WebSession).values(browser=text[:64], address=text[:64]))
        reviews.add_review(session, 1, Severity.SEVERE, text, Participant(text))


class Elements(HTMLParser):
    """How many elements of which kind, with which attributes, a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[object] = Counter()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found[tag, tuple(name for name, _ in attributes)] += 1

    def handle_endtag(self, tag):
        self.found[tag] += 1


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_adds_no_element_to_any_page_and_is_shown_unchanged(site, admin, text):
    write(site, PLAIN)
    reviewed, unassessed = (f"/studies/{SEVERE_UID}?at={name_of(key)}" for key in ALL_FINDINGS[:2])
    addresses = [*PAGES, reviewed, unassessed]
    plain = {path: admin.get(path).text for path in addresses}
    write(site, text)
    for path in addresses:
        page = admin.get(path).text
        kinds = set if path == "/audit" else dict  # the trail grows while it is looked at
        assert kinds(Elements(page).found) == kinds(Elements(plain[path]).found), path
        if text in PLAIN.join(HOSTILE[:3]):
            assert text not in page
        if PLAIN in plain[path]:
            assert str(escape(text)) in page, path
    assert sum(PLAIN in page for page in plain.values()) >= 10
    assert f"Reviewed by {PLAIN}" in plain[reviewed]
    assert f"Not assessed: {PLAIN}" in plain[unassessed]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "q"),
        ("/studies", "q"),
        ("/findings", "since"),
        ("/findings", "until"),
        ("/audit", "event"),
        ("/audit", "who"),
        ("/quality", "scanner"),
    ],
)
def test_a_query_is_shown_escaped(admin, path, name, text):
    page = admin.get(path, params={name: f"{text} nobody"})
    assert page.status_code == (422 if name in ("since", "until") else 200)
    assert str(escape(text)) in page.text or name == "scanner"  # which is chosen from a list
    assert (
        Elements(page.text).found
        == Elements(admin.get(path, params={name: "nothing like that"}).text).found
    )


@pytest.mark.parametrize("text", [text for text in HOSTILE if "/" not in text])
def test_an_error_page_and_a_destinations_page_quote_it_escaped(admin, text):
    missing = admin.get(f"/studies/{text}")
    assert missing.status_code == 404
    assert Elements(missing.text).found == Elements(admin.get("/studies/1.2.3").text).found
    echo = admin.post(f"/destinations/{text}/echo", data={"csrf_token": admin.csrf})
    assert echo.status_code == 200
    assert (
        Elements(echo.text).found
        == Elements(admin.submit(f"/destinations/{PLAIN}/echo").text).found
    )


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\xa0=1",
        "\u3000+1",
        "\uff1d1",
        "\uff20A",
        " \t-1",
    ],
)
def test_no_cell_of_a_table_is_run_by_a_spreadsheet(site, admin, text):
    write(site, text)
    for path in ("/findings.csv", "/jobs.csv", "/quarantine.csv"):
        response = admin.get(path)
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert response.headers["content-disposition"].startswith("attachment")
        rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
        assert rows
        cells = [value for row in rows for value in row.values()]
        assert any(value.startswith("'") for value in cells)
        assert not [value for value in cells if re.match(r"\s*[=+@\uff1d\uff0b\uff20-]", value)]


def test_a_cell_keeps_its_text_within_its_cell(site, admin):
    text = 'Doe, "Jane"\n=1;2'
    write(site, text)
    table = csv.DictReader(io.StringIO(admin.get("/findings.csv").text, newline=""))
    row = next(row for row in table if row["assessed"] == "true")
    assert row["patient_name"] == row["scanner"] == 'Doe, "Jane"\ufffd=1;2'
    assert float(row["severe"]) >= 0


@pytest.mark.parametrize(
    ("value", "text"), [(-1.5, -1.5), (None, None), ("Doe", "Doe"), ("", ""), ("=1", "'=1")]
)
def test_numbers_and_usual_words_are_written_as_they_are(value, text):
    assert cell(value) == text


def test_monitoring_pages_show_no_patient_data(site, admin):
    write(site, "MARKER")
    assert "MARKER" in admin.get("/").text
    client = WebClient(admin.app)
    watched = [
        "/metrics",
        "/healthz",
        "/readyz",
        "/sign-in",
        "/api/v1/openapi.json",
        "/static/study.js",
    ]
    for path in [*watched, *PAGES, "/findings.csv", "/nowhere"]:
        response = client.get(path)
        assert "MARKER" not in response.text + str(response.headers), path
        assert SEVERE_UID not in response.text, path
        assert (response.status_code == 200) == (path in watched), path
