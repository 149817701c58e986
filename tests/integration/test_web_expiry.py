"""Expired studies on the pages, in the API, on the command line and in the metrics."""

import json

import pytest

from db import expiry, reviews, studies
from db.audit import Participant
from db.models import UserRole
from tests.factories.ages import pass_days
from tests.factories.analyses import CANAL, SEVERE, analysed
from tests.factories.instances import ROOT
from tests.integration.web_client import WebClient, browser_client, sqlite_only, token_client
from tests.system import System
from web.app import create_app

pytestmark = sqlite_only


@pytest.fixture
def app(site):
    """Of five studies 1 and 2 have expired, 1 severe; 3 was read; 4 waits; 5 soon expires."""
    analysed(site, 1, {CANAL: SEVERE})
    for number in (2, 3):
        analysed(site, number)
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, f"{ROOT}.3"), Participant("anna"))
    pass_days(site.database, 1)
    analysed(site, 5, {CANAL: SEVERE})
    pass_days(site.database, 6.1)
    expiry.expire_unread(site)
    analysed(site, 4)
    return create_app(site)


@pytest.fixture
def reader(app) -> WebClient:
    return browser_client(app, UserRole.READER)


@pytest.fixture
def program(app) -> WebClient:
    return token_client(app, UserRole.READER)


def numbers(response):
    return sorted(int(r["study_instance_uid"].rpartition(".")[2]) for r in response.json()["rows"])


def test_the_api_lists_and_counts_them(program):
    assert numbers(program.get("/api/v1/worklist")) == [4, 5]
    assert numbers(program.get("/api/v1/studies?reading=expired")) == [1, 2]
    assert numbers(program.get("/api/v1/studies?reading=expired&severe=true")) == [1]
    assert numbers(program.get("/api/v1/studies?reading=read")) == [3]
    assert numbers(program.get("/api/v1/studies?reading=waiting")) == [4, 5]
    assert numbers(program.get("/api/v1/studies?reading=")) == [1, 2, 3, 4, 5]
    assert program.get("/api/v1/studies?reading=lost").status_code == 422
    assert program.get("/api/v1/worklist?reading=expired").status_code == 422
    (severe,) = program.get("/api/v1/studies?reading=expired&severe=true").json()["rows"]
    assert (severe["reading"], severe["read_at"]) == ("expired", None)
    assert severe["expired_at"]
    assert program.get("/api/v1/worklist/counts").json() == {
        "unread": 2,
        "severe": 1,
        "severe_expiring": 1,
        "expired": 2,
        "expired_severe": 1,
    }


def test_the_pages_show_them(reader):
    page = reader.get("/").text
    assert "1 severe study expires" in page
    assert "2 left the list unread after 7 days" in page
    assert 'href="/studies?reading=expired&amp;severe=true"' in page
    listed = reader.get("/studies?reading=expired").text
    assert f"/studies/{ROOT}.1" in listed
    assert f"/studies/{ROOT}.4" not in listed
    assert "<small>expired, unread</small>" in listed
    assert "<small>read</small>" in reader.get("/studies").text
    assert "Left the worklist unread" in reader.get(f"/studies/{ROOT}.1").text


def test_it_is_marked_as_read_or_put_back(reader, program):
    assert "Put back on the worklist" in reader.get(f"/studies/{ROOT}.1").text
    assert reader.submit(f"/studies/{ROOT}.1/read", undo="true").status_code == 303
    assert numbers(program.get("/api/v1/worklist")) == [1, 4, 5]
    assert reader.submit(f"/studies/{ROOT}.2/read").status_code == 303
    assert numbers(program.get("/api/v1/studies?reading=expired")) == []
    assert numbers(program.get("/api/v1/studies?reading=read")) == [2, 3]


def test_a_filter_stays_in_the_address_of_the_next_page(reader, monkeypatch):
    monkeypatch.setattr("web.pages.ROWS", 1)
    page = reader.get("/studies?reading=expired").text
    assert 'href="/studies?reading=expired&amp;after=' in page


def test_metrics_count_them(app):
    metrics = WebClient(app).get("/metrics").text
    assert 'lumbar_worklist{what="expired"} 2.0' in metrics
    assert 'lumbar_worklist{what="expired_severe"} 1.0' in metrics
    assert 'lumbar_worklist{what="severe_expiring"} 1.0' in metrics


def test_the_command_line_lists_and_counts_them(site, app, tmp_path):
    url = f"sqlite:///{site.database.engine.url.database}"
    system = System(tmp_path / "cli", {"LUMBAR_DATABASE_URL": url})

    def listed(*options):
        done = system.lumbar("worklist", *options, "--format", "json")
        assert done.returncode == 0, done.stderr
        records = json.loads(done.stdout)
        uids = sorted(r["study_instance_uid"].rpartition(".")[2] for r in records)
        return uids, {r["reading"] for r in records}, done.stderr

    assert listed() == (["4", "5"], {"waiting"}, "1 severe study expires within 24 h.\n")
    assert listed("--expired")[:2] == (["1", "2"], {"expired"})
    assert listed("--expired", "--severe")[:2] == (["1"], {"expired"})
    assert listed("--all")[1] == {"waiting", "expired", "read"}
    assert "expired, unread" in system.lumbar("worklist", "--expired").stdout
    figures = {
        line["what"]: line["value"]
        for line in json.loads(system.lumbar("status", "--format", "json").stdout)
        if line["topic"] == "worklist"
    }
    assert figures == {
        "unread": 2,
        "unread, severe": 1,
        "severe, expire within 24 h": 1,
        "expired, unread": 2,
        "expired, unread, severe": 1,
    }
