"""Users: names, roles, and what ends when they change."""

import pytest
from sqlalchemy import select

from db import accounts, api_tokens, sessions
from db.accounts import LastAdministrator
from db.models import AuditEvent, Permission, User, UserRole
from db.passwords import new_hash
from db.sign_in import SignInRefused
from lumbar.errors import Permanent
from tests.factories.accounts import OPERATOR, PASSWORD, add_user, signed_in


@pytest.fixture
def anna(database):
    return add_user(database, "anna")


def actor(database, cookie):
    with database.reading() as session:
        return sessions.by_cookie(session, cookie)


def change(database, name, function, *arguments, **options):
    with database.transaction() as session:
        user = accounts.locked(session, name)
        function(session, user, *arguments, OPERATOR, **options)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("anna", "already"),
        ("", "1 to 64"),
        ("a\nb", "letters, digits"),
        ("a/b", "letters, digits"),
        ("a" * 65, "1 to 64"),
    ],
)
def test_an_invalid_user_is_refused_with_a_message(database, anna, name, reason):
    with pytest.raises(Permanent, match=reason):
        add_user(database, name)


@pytest.mark.parametrize("act", ["disable", "password"])
def test_a_session_ends_at_once(database, anna, act):
    cookie = signed_in(database)
    if act == "disable":
        change(database, "anna", accounts.set_disabled, True)
    else:
        change(
            database,
            "anna",
            accounts.set_password,
            new_hash("another good one", "anna"),
            keep_tokens=True,
        )
    assert actor(database, cookie) is None


def test_a_disabled_user_may_not_sign_in_until_enabled_again(database, anna):
    change(database, "anna", accounts.set_disabled, True)
    with pytest.raises(SignInRefused):
        signed_in(database)
    change(database, "anna", accounts.set_disabled, False)
    assert signed_in(database)


@pytest.mark.parametrize("keep_tokens", [True, False])
def test_a_new_password_revokes_the_users_tokens_unless_told_otherwise(database, keep_tokens):
    secrets = []
    for name in ("anna", "ben"):
        user = add_user(database, name)
        with database.transaction() as session:
            scopes = {Permission.READ}
            secrets.append(api_tokens.new_token(session, user, "ris", scopes, 1, OPERATOR))
    made = new_hash("another good one", "anna")
    change(database, "anna", accounts.set_password, made, keep_tokens=keep_tokens)
    with database.reading() as session:
        valid = [api_tokens.by_token(session, secret) is not None for secret in secrets]
    assert valid == [keep_tokens, True]


@pytest.mark.parametrize(
    ("function", "value"), [(accounts.set_disabled, True), (accounts.set_role, UserRole.VIEWER)]
)
def test_the_last_enabled_administrator_remains_unless_told_otherwise(database, function, value):
    for name in ("anna", "ben"):
        add_user(database, name, UserRole.ADMIN)
    add_user(database, "cleo", UserRole.OPERATOR)
    change(database, "ben", accounts.set_disabled, True)
    with pytest.raises(LastAdministrator, match="anna is the last enabled administrator"):
        change(database, "anna", function, value)
    change(database, "cleo", function, value)
    change(database, "ben", accounts.set_role, UserRole.VIEWER)
    with pytest.raises(LastAdministrator):
        change(database, "anna", function, value)
    change(database, "anna", function, value, even_last=True)
    change(database, "anna", accounts.set_disabled, True)


def test_passwords_and_cookies_are_neither_stored_nor_audited(database, anna):
    cookie = signed_in(database)
    with database.transaction() as session:
        secret = api_tokens.new_token(session, anna, "ris", {Permission.READ}, 1, OPERATOR)
    with pytest.raises(SignInRefused):
        signed_in(database, password="hunter2hunter2")
    with database.reading() as session:
        events = session.scalars(select(AuditEvent)).all()
        stored = session.scalars(select(User.password_hash)).one()
    assert [event.event for event in events] == [
        "user.added",
        "sign_in.done",
        "token.made",
    ]
    text = stored + "".join(f"{event.actor} {event.detail}" for event in events)
    assert not any(value in text for value in (cookie, secret, PASSWORD, "hunter2"))
