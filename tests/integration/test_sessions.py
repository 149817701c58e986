"""Browsers' sessions: how long they last, and who ends them."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from db import sessions
from db.models import WebSession
from db.sessions import IDLE_TIMEOUT, MAX_SESSION
from lumbar.errors import NotFound, Permanent
from tests.factories.accounts import add_user, signed_in


@pytest.fixture
def anna(database):
    return add_user(database, "anna")


def actor(database, cookie):
    with database.reading() as session:
        return sessions.by_cookie(session, cookie)


def lasting(database, cookies) -> list[bool]:
    return [actor(database, cookie) is not None for cookie in cookies]


@pytest.mark.parametrize(
    ("column", "age"), [("last_used_at", IDLE_TIMEOUT), ("created_at", MAX_SESSION)]
)
def test_a_session_ends_when_idle_and_at_its_maximum_age(database, anna, column, age):
    cookie = signed_in(database)
    with database.transaction() as session:
        row = session.scalars(select(WebSession)).one()
        setattr(row, column, datetime.now(UTC) - age - timedelta(seconds=1))
    assert actor(database, cookie) is None
    with database.reading() as session:
        assert sessions.of_user(session, anna.id) == []


def test_using_a_session_keeps_it_open(database, anna):
    cookie = signed_in(database)
    with database.transaction() as session:
        row = session.scalars(select(WebSession)).one()
        row.last_used_at = before = datetime.now(UTC) - timedelta(minutes=50)
    with database.transaction() as session:
        sessions.record_use(session, cookie)
    with database.reading() as session:
        assert session.scalars(select(WebSession.last_used_at)).one() > before


def test_signing_out_ends_this_session_only(database, anna):
    cookies = [signed_in(database) for _ in range(2)]
    user = actor(database, cookies[0])
    with database.transaction() as session:
        sessions.sign_out(session, user)
    assert lasting(database, cookies) == [False, True]


def test_signing_in_again_ends_the_session_that_the_browser_had(database, anna):
    add_user(database, "ben")
    first, other = signed_in(database), signed_in(database)
    second = signed_in(database, session_cookie=first)
    third = signed_in(database, "ben", session_cookie=second)
    assert lasting(database, [first, other, second, third]) == [False, True, False, True]


def test_beyond_the_limit_the_oldest_session_ends(database, anna, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS_KEPT", 3)
    add_user(database, "ben")
    cookies = [signed_in(database, "ben")] + [signed_in(database) for _ in range(5)]
    assert lasting(database, cookies) == [True, False, False, True, True, True]


def test_users_end_their_own_sessions_and_nobody_elses(database, anna):
    add_user(database, "ben")
    theirs = signed_in(database, "ben")
    mine = [signed_in(database) for _ in range(4)]
    user = actor(database, mine[0])
    with database.transaction() as session:
        sessions.end(session, user, actor(database, mine[1]).session_id)
    assert lasting(database, mine) == [True, False, True, True]
    with database.transaction() as session:
        with pytest.raises(NotFound):
            sessions.end(session, user, actor(database, theirs).session_id)
        sessions.end_others(session, user)
    assert lasting(database, [theirs, *mine]) == [True, True, False, False, False]


def test_a_session_that_has_ended_ends_no_other(database, anna):
    ended, other = (signed_in(database) for _ in range(2))
    user = actor(database, ended)
    with database.transaction() as session:
        sessions.end(session, user, user.session_id)
    with database.transaction() as session, pytest.raises(Permanent, match="any more"):
        sessions.end_others(session, user)
    assert lasting(database, [other]) == [True]
