"""The database tables for administrators: whatever is asked for, the answer is never 500."""

import pytest
from sqladmin import ModelView

from db.ingest import ingest
from db.models import UserRole
from tests.factories.instances import arrival, make_slice
from tests.integration.web_client import WebClient, browser_client
from web import admin
from web.app import create_app

NO_ROWS = [
    *("0", "-1", "-0", "+1", "2", "01", "1.0", "1.5", "1e0", "1e400", "nan", "inf", "0x1", "1_0"),
    *(
        "2147483647",
        "2147483648",
        "-2147483649",
        "9223372036854775807",
        "9223372036854775808",
        "1" * 400,
    ),
    *(
        "9" * 5000,
        "a",
        "None",
        "null",
        "true",
        "1;2",
        "1,2",
        "1 ",
        "%201",
        "1%0A",
        "1%09",
        "%E2%80%8B1",
    ),
    *(
        "%D9%A1",
        "%EF%BC%91",
        "%C2%B2",
        "%FF",
        "%ED%A0%80",
        "%F0%9F%92%A9",
        "'",
        '"',
        "1'--",
        "1%5C",
    ),
    *(
        "1/2",
        "1/",
        "..",
        "../1",
        "%2e%2e%2f1",
        "1%2f1",
        "*",
        "%25",
        "%250",
        "{}",
        "[1]",
        "<script>",
    ),
    *("1/id/download/", "1/id/preview/", "1.2.826.0.1.3680043.8.498.1"),
]
NUL = ["%00", "1%00", "%001"]
QUERIES = {
    "page": [
        "0",
        "-1",
        "9" * 30,
        "9" * 5000,
        "a",
        "1.5",
        "%D9%A1",
        "%F0%9F%92%A9",
        "1e3",
        " ",
        "1_0",
    ],
    "pageSize": ["0", "-1", "9" * 30, "9" * 5000, "a", "1.5", "%D9%A1", " ", "None"],
    "sortBy": [
        "a",
        "id",
        "study_id",
        "__class__",
        "metadata",
        "id;drop",
        "a.b",
        "id.x",
        "%FF",
        "9" * 5000,
    ],
    "sort": ["a", "desc", "ASC", "%FF"],
    "search": ["a", "%25", "%FF", "'", "a" * 8000, "%F0%9F%92%A9"],
    "state": ["a", "__all", "analysed", "ANALYSED", "", " ", "1", "%FF", "a" * 8000],
    "severity": ["a", "severe", "SEVERE", "%FF"],
    "error": ["<script>alert(1)</script>"],
    "pks": ["a"],
    "unknown": ["a"],
}
ODD_QUERIES = [f"{name}={value}" for name, values in QUERIES.items() for value in values]
ODD_QUERIES += ["page=1&page=a", "page[]=1", "state=analysed&state=a", "&&&", "=", "%", "page"]


@pytest.fixture
def client(site) -> WebClient:
    ingest(site.database, site.store, arrival(make_slice()))
    return browser_client(create_app(site), UserRole.ADMIN)


def identities() -> list[str]:
    views: list[type[ModelView]] = [admin._view(table) for table in admin._FILTERS]
    return [view.identity for view in views]


def statuses(client: WebClient, addresses: list[str]) -> dict[str, int]:
    """The address as it is sent, without what a client would make of it."""
    return {address: client.get(address).status_code for address in addresses}


def test_a_row_is_shown_by_its_own_number_only(client):
    assert client.get("/admin/study/details/1").status_code == 200
    answers = statuses(client, [f"/admin/study/details/{odd}" for odd in NO_ROWS])
    assert set(answers.values()) == {404}, {
        address[:60]: status for address, status in answers.items() if status != 404
    }
    assert set(statuses(client, [f"/admin/study/details/{nul}" for nul in NUL]).values()) == {400}


@pytest.mark.parametrize("identity", identities())
def test_no_table_answers_an_odd_number_with_an_error_of_its_own(client, identity):
    for odd in ("", "a", "2147483648", "9223372036854775808", "1" * 400, "%D9%A1", "1.0"):
        assert client.get(f"/admin/{identity}/details/{odd}").status_code == 404
        for access in ("download", "preview"):
            address = f"/admin/{identity}/{odd or 1}/id/{access}/"
            assert client.get(address).status_code == 404


def test_no_table_has_files(client):
    for column in ("id", "none", "study_instance_uid", "%2e%2e"):
        for access in ("download", "preview"):
            assert client.get(f"/admin/study/1/{column}/{access}/").status_code == 404


@pytest.mark.parametrize(
    "identity", ["Study", "none", "%FF", "..", "user", "web-session", "a" * 5000]
)
def test_what_is_no_table_is_not_found(client, identity):
    for place in ("list", "details/1", "export/csv", "ajax/lookup"):
        assert client.get(f"/admin/{identity}/{place}").status_code == 404


def test_odd_questions_get_rows_or_a_refusal(client):
    answers = statuses(client, [f"/admin/study/list?{query}" for query in ODD_QUERIES])
    answers |= statuses(client, [f"/admin/finding/list?{query}" for query in ODD_QUERIES])
    assert set(answers.values()) <= {200, 302, 400}, {
        address[:80]: status for address, status in answers.items() if status >= 500
    }
    refused = ("state=a", "state=ANALYSED", "pageSize=-1", "sortBy=a", "page=a")
    assert {answers[f"/admin/study/list?{query}"] for query in refused} == {400}
    assert answers["/admin/study/list?state=analysed"] == 200
    assert answers["/admin/study/list?state=__all"] == 200


def test_a_filter_shows_what_it_names(client):
    assert "1.2.826" in client.get("/admin/study/list?state=receiving").text
    assert "receiving</td>" not in client.get("/admin/study/list?state=analysed").text


def test_no_other_format_is_exported(client):
    for odd in ("xml", "json", "CSV", "%FF", "a" * 5000, "..%2fcsv"):
        assert client.get(f"/admin/study/export/{odd}").status_code == 404
    assert client.get("/admin/study/export/csv").status_code == 200
