"""Who may sign in: passwords, sessions, tokens, and the limit of attempts."""

from datetime import UTC, datetime, timedelta

import pytest
from argon2 import Type
from sqlalchemy import func, select

from db import accounts
from db.accounts import IDLE_TIMEOUT, MAX_FAILURES, MAX_SESSION, SignInRefused, TooManyAttempts
from db.audit import Participant
from db.models import ApiToken, AuditEvent, Permission, SignInFailure, User, UserRole, WebSession
from lumbar.errors import Permanent

PASSWORD = "correct horse battery"


@pytest.fixture
def anna(database):
    with database.transaction() as session:
        return accounts.add_user(session, "anna", PASSWORD, UserRole.READER, Participant("test"))


def sign_in(database, name="anna", password=PASSWORD, address="10.0.0.1"):
    """Commits a refusal too, as the page does."""
    refusal = None
    with database.transaction() as session:
        try:
            return accounts.sign_in(session, name, password, address).cookie
        except Permanent as error:
            refusal = error
    raise refusal


def actor(database, cookie):
    with database.reading() as session:
        return accounts.by_cookie(session, cookie)


def test_the_right_password_opens_a_session_with_what_the_role_may(database, anna):
    user = actor(database, sign_in(database))
    assert (user.name, user.permissions) == ("anna", {Permission.READ, Permission.REVIEW})
    assert user.csrf_token


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong"), ("nobody", PASSWORD), ("anna", ""), ("anna", "x" * 5000)],
)
def test_any_other_credentials_are_refused_with_the_same_message(database, anna, name, password):
    with pytest.raises(SignInRefused, match="the name or the password is wrong"):
        sign_in(database, name, password)


def test_passwords_and_cookies_are_not_stored(database, anna):
    cookie = sign_in(database)
    with database.reading() as session:
        stored = (
            session.scalars(select(User.password_hash)).one(),
            session.scalars(select(WebSession.token_sha256)).one(),
        )
    assert stored[0].startswith("$argon2id$")
    assert PASSWORD not in stored[0]
    assert cookie not in stored[1]


def test_a_hash_costs_what_rfc_9106_recommends_where_memory_is_short(production_hasher):
    assert production_hasher.time_cost >= 3
    assert production_hasher.memory_cost >= 64 * 1024  # KiB
    assert production_hasher.type is Type.ID


def test_too_many_attempts_for_a_name_block_even_the_right_password_until_they_expire(
    database, anna
):
    for n in range(MAX_FAILURES):
        with pytest.raises(SignInRefused):
            sign_in(database, password="wrong", address=f"10.0.0.{n}")
    with pytest.raises(TooManyAttempts, match="try again in 10 minutes"):
        sign_in(database, address="10.1.1.1")
    with database.transaction() as session:
        for failure in session.scalars(select(SignInFailure)):
            failure.happened_at -= timedelta(minutes=11)
    assert sign_in(database)


def test_too_many_attempts_from_an_address_block_it_and_no_other(database, anna):
    for n in range(MAX_FAILURES):
        with pytest.raises(SignInRefused):
            sign_in(database, f"guess {n}", "wrong")
    with pytest.raises(TooManyAttempts):
        sign_in(database)
    assert sign_in(database, address="10.0.0.2")


@pytest.mark.parametrize(
    ("column", "age"), [("last_used_at", IDLE_TIMEOUT), ("created_at", MAX_SESSION)]
)
def test_a_session_ends_when_idle_and_at_its_maximum_age(database, anna, column, age):
    cookie = sign_in(database)
    with database.transaction() as session:
        setattr(
            session.scalars(select(WebSession)).one(),
            column,
            datetime.now(UTC) - age - timedelta(seconds=1),
        )
    assert actor(database, cookie) is None


def test_using_a_session_keeps_it_open(database, anna):
    cookie = sign_in(database)
    with database.transaction() as session:
        row = session.scalars(select(WebSession)).one()
        row.last_used_at = before = datetime.now(UTC) - timedelta(minutes=50)
    with database.transaction() as session:
        accounts.record_use(session, cookie)
    with database.reading() as session:
        assert session.scalars(select(WebSession.last_used_at)).one() > before


@pytest.mark.parametrize("act", ["disable", "password", "sign_out"])
def test_a_session_ends_at_once(database, anna, act):
    cookie = sign_in(database)
    with database.transaction() as session:
        user = accounts.user_named(session, "anna")
        if act == "disable":
            accounts.set_disabled(session, user, True, Participant("test"))
        elif act == "password":
            accounts.set_password(session, user, "another good one", Participant("test"))
        else:
            accounts.sign_out(session, cookie, Participant("anna"))
    assert actor(database, cookie) is None


def test_a_disabled_user_may_not_sign_in_until_enabled_again(database, anna):
    for disabled in (True, False):
        with database.transaction() as session:
            accounts.set_disabled(
                session, accounts.user_named(session, "anna"), disabled, Participant("test")
            )
        if disabled:
            with pytest.raises(SignInRefused):
                sign_in(database)
    assert sign_in(database)


def token(database, scopes, days=1.0):
    with database.transaction() as session:
        return accounts.new_token(
            session, accounts.user_named(session, "anna"), "ris", scopes, days, Participant("test")
        )


def test_a_token_allows_its_scopes_within_its_users_current_permissions(database, anna):
    secret = token(database, {Permission.READ, Permission.REVIEW})
    with database.transaction() as session:
        assert accounts.by_token(session, secret).permissions == {
            Permission.READ,
            Permission.REVIEW,
        }
        accounts.set_role(
            session, accounts.user_named(session, "anna"), UserRole.VIEWER, Participant("test")
        )
        assert accounts.by_token(session, secret).permissions == {Permission.READ}


def test_a_token_cannot_allow_more_than_its_user_may(database, anna):
    with pytest.raises(Permanent, match="a token of anna may have: read, review"):
        token(database, {Permission.ADMINISTER})


@pytest.mark.parametrize("end", ["expire", "revoke", "disable", "guess"])
def test_a_token_ends(database, anna, end):
    secret = token(database, {Permission.READ})
    with database.transaction() as session:
        row = session.scalars(select(ApiToken)).one()
        if end == "expire":
            row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
        elif end == "revoke":
            accounts.revoke_token(session, row.id, Participant("test"))
        elif end == "disable":
            accounts.set_disabled(
                session, accounts.user_named(session, "anna"), True, Participant("test")
            )
        session.flush()
        assert accounts.by_token(session, secret + ("x" if end == "guess" else "")) is None


def test_another_users_token_cannot_be_revoked(database, anna):
    token(database, {Permission.READ})
    with database.transaction() as session, pytest.raises(Permanent, match="there is no token 1"):
        accounts.revoke_token(session, 1, Participant("eve"), user_id=anna.id + 1)


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("anna", PASSWORD, "already"),
        ("ben", "short", "12 to 1024 characters"),
        ("", PASSWORD, "1 to 64"),
        ("a\nb", PASSWORD, "letters, digits"),
        ("a/b", PASSWORD, "letters, digits"),
        ("a" * 65, PASSWORD, "1 to 64"),
    ],
)
def test_an_invalid_user_is_refused_with_a_message(database, anna, name, password, reason):
    with database.transaction() as session, pytest.raises(Permanent, match=reason):
        accounts.add_user(session, name, password, UserRole.VIEWER, Participant("test"))


def test_every_action_is_in_the_audit_trail_without_a_secret(database, anna):
    cookie = sign_in(database)
    secret = token(database, {Permission.READ})
    with pytest.raises(SignInRefused):
        sign_in(database, password="hunter2hunter2")
    with database.reading() as session:
        events = session.scalars(select(AuditEvent)).all()
        assert session.scalar(select(func.count()).select_from(SignInFailure)) == 2
    assert [event.event for event in events] == [
        "user.added",
        "sign_in.done",
        "token.made",
    ]
    text = "".join(f"{event.actor} {event.detail}" for event in events)
    assert not any(secret_value in text for secret_value in (cookie, secret, PASSWORD, "hunter2"))
