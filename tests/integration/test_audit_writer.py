"""Audit events that a thread writes: nothing is lost, nobody waits, a flood is summed."""

import time

import pytest
import requests
from sqlalchemy import select, text
from structlog.testing import capture_logs

from db import audit, audit_writer
from db.audit import Participant
from db.audit_writer import FIRST, AuditWriter, Line
from db.database import Database
from db.ingest import ingest
from db.models import AuditEvent
from lumbar.audit_messages import Outcome
from tests.browser.served import new_site, serving
from tests.factories.instances import ROOT, arrival, make_slice
from tests.integration.web_client import sqlite_only
from tests.system import closing_database, wait_until

ANNA = Participant("anna", "10.0.0.1")
GUESSED = {"Authorization": "Bearer lumbar_guessed"}
TRY = Line("sign_in.refused", ANNA, Outcome.REFUSED)


def lines(database):
    with database.reading() as session:
        return [line for _, line in audit.lines_after(session, 0, 100_000)]


def note(writer, count, line=TRY):
    for _ in range(count):
        writer.note(line, stranger=True)


def test_a_line_says_who_from_where_what_on_what_and_how_it_ended(site):
    ingest(site.database, site.store, arrival(make_slice()))
    with AuditWriter(site.database) as writer:
        study = f"{ROOT}.1"
        asked = Line("request.refused", ANNA, Outcome.REFUSED, study=study, detail={"job": 7})
        writer.note(asked, stranger=False)
        writer.note(Line("request.refused", ANNA, study="Müller^Anna", user="x'"), stranger=False)
    first, second = lines(site.database)
    assert (first.actor, first.address, first.outcome) == ("anna", "10.0.0.1", Outcome.REFUSED)
    assert (first.study_instance_uid, first.detail, first.times) == (study, {"job": 7}, 1)
    assert (second.study_instance_uid, second.detail) == (None, {})


def test_a_flood_is_summed_when_its_period_ends_though_nothing_follows(database, monkeypatch):
    monkeypatch.setattr(audit_writer, "PERIOD_S", 1.0)
    begun = []
    begin = Database.transaction
    monkeypatch.setattr(Database, "transaction", lambda self: begun.append(1) or begin(self))
    with AuditWriter(database) as writer:
        note(writer, 990)
        wait_until(lambda: sum(line.times for line in lines(database)) == 990, 10, str)
        written = lines(database)
    assert len(written) == FIRST + 1
    assert len(begun) <= 20  # not one for each
    assert (written[-1].times, written[-1].actor) == (990 - FIRST, "anna")
    assert written[-1].outcome is Outcome.REFUSED
    assert lines(database) == written


def test_what_is_only_counted_is_written_at_the_end(database):
    with AuditWriter(database) as writer:
        note(writer, 10)
    assert sum(line.times for line in lines(database)) == 10
    writer.close()


def test_a_page_that_stops_writes_what_it_has_counted(tmp_path):
    site = new_site(tmp_path / "home")
    with serving(site) as served:
        for _ in range(20):
            refused = requests.get(f"{served.root}/api/v1/jobs", headers=GUESSED, timeout=10)
            assert refused.status_code == 401
    with closing_database(site.settings.effective_database_url) as database:
        found = [line for line in lines(database) if line.event == "token.refused"]
    assert [line.times for line in found] == [1] * FIRST + [20 - FIRST]
    assert {(line.actor, line.address) for line in found} == {("", "127.0.0.1")}


def test_nothing_is_lost_while_the_database_is_away(database, monkeypatch):
    monkeypatch.setattr(audit_writer, "PERIOD_S", 1.0)
    monkeypatch.setattr(audit_writer, "RETRY_S", 0.2)
    away = [True]
    begin = Database.transaction

    def transaction(database):
        if away[0]:
            raise audit_writer.Transient("the database is away")
        return begin(database)

    monkeypatch.setattr(Database, "transaction", transaction)
    with AuditWriter(database) as writer:
        with capture_logs() as events:
            note(writer, 100)
            wait_until(lambda: len(events) >= 3, 10, str)  # it has been tried for over a period
            note(writer, 100)
        assert {each["event"] for each in events} == {"audit.not_written"}
        away[0] = False
    assert sum(line.times for line in lines(database)) == 200


@sqlite_only
def test_whoever_is_refused_waits_for_no_lock(database):
    with (
        AuditWriter(database) as writer,
        database.transaction() as session,  # SQLite's only write lock
    ):
        session.execute(text("UPDATE audit_forward SET last_id = last_id"))
        began = time.monotonic()
        note(writer, 10_000)
        assert time.monotonic() - began < 5  # to wait for the lock takes longer
        assert session.scalars(select(AuditEvent)).all() == []


@pytest.mark.parametrize("strangers", [1, 1000])
def test_strangers_leave_the_lines_of_those_who_are_signed_in_alone(database, strangers):
    with AuditWriter(database) as writer:
        for number in range(strangers):
            line = Line("token.refused", Participant("", f"10.0.1.{number}"), Outcome.REFUSED)
            note(writer, 5, line)
        writer.note(Line("request.refused", ANNA, Outcome.REFUSED, study="1.2"), stranger=False)
    refused = [line for line in lines(database) if line.event == "request.refused"]
    assert [(line.actor, line.times) for line in refused] == [("anna", 1)]


def test_one_users_flood_hides_neither_anothers_refusals_nor_their_own_views(database):
    olaf = Participant("olaf")
    with AuditWriter(database) as writer:
        for number in range(2000):
            line = Line(
                "request.refused", Participant("olaf"), Outcome.REFUSED, detail={"n": number}
            )
            writer.note(line, stranger=False)
        writer.note(Line("users.seen", olaf), stranger=False)
        detail = {"request": "POST /studies/{uid}/delete"}
        refused = Line("request.refused", Participant("anna"), Outcome.REFUSED, detail=detail)
        writer.note(refused, stranger=False)
    written = lines(database)
    assert [line.detail for line in written if line.actor == "anna"] == [detail]
    assert [line.times for line in written if line.event == "users.seen"] == [1]


def test_a_line_that_cannot_be_written_loses_no_other(database, monkeypatch):
    add = audit_writer._add

    def failing(session, line):
        if line.event == "bad":
            raise ValueError
        add(session, line)

    monkeypatch.setattr(audit_writer, "_add", failing)
    with AuditWriter(database) as writer:
        for event in ("first", "bad", "last"):
            writer.note(Line(event, Participant("anna")), stranger=False)
    assert [line.event for line in lines(database)] == ["first", "last"]
