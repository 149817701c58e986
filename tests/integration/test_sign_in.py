"""Signing in: who gets in, and how many attempts there are."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from db import accounts, attempts, passwords, sessions, sign_in
from db.attempts import ADDRESS, HERE, NAME, TooManyAttempts
from db.models import KnownBrowser, PasswordAttempts, Permission
from db.passwords import new_hash
from db.sign_in import Browser, SignInRefused
from lumbar.errors import Permanent
from tests.factories.accounts import OPERATOR, PASSWORD, add_user, signed_in


@pytest.fixture
def anna(database):
    return add_user(database, "anna")


def actor(database, cookie):
    with database.reading() as session:
        return sessions.by_cookie(session, cookie)


def guess(database, count, name="anna", address="10.0.0.1", **cookies):
    """Guesses wrong passwords; returns how many were looked at."""
    looked_at = 0
    for _ in range(count):
        try:
            signed_in(database, name, "wrong", address, **cookies)
        except SignInRefused:
            looked_at += 1
        except TooManyAttempts:
            pass
    return looked_at


def test_the_right_password_opens_a_session_with_what_the_role_may(database, anna):
    user = actor(database, signed_in(database))
    assert (user.name, user.permissions) == ("anna", {Permission.READ, Permission.REVIEW})
    assert user.csrf_token


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong"), ("nobody", PASSWORD), ("anna", ""), ("anna", "x" * 5000)],
)
def test_any_other_credentials_are_refused_with_the_same_message(database, anna, name, password):
    with pytest.raises(SignInRefused, match="the name or the password is wrong"):
        signed_in(database, name, password)


def test_a_name_at_one_address_has_ten_attempts_and_one_more_each_minute(database, anna, turn):
    assert guess(database, HERE.at_once + 3) == HERE.at_once
    with pytest.raises(TooManyAttempts, match=r"try again in 1 minute$") as refusal:
        signed_in(database)
    assert 0 < refusal.value.retry_after_s <= HERE.each_s
    turn(HERE.each_s)
    assert guess(database, 3) == 1
    turn(2 * HERE.each_s)
    assert signed_in(database)


def test_a_success_gives_back_what_was_used_up(database, anna):
    assert guess(database, HERE.at_once - 1) == HERE.at_once - 1
    signed_in(database)
    assert guess(database, HERE.at_once - 1) == HERE.at_once - 1


def test_attempts_from_elsewhere_do_not_lock_a_user_out(database, anna):
    assert guess(database, 50, address="192.0.2.1") == HERE.at_once
    assert signed_in(database)
    for host in range(9):
        assert guess(database, 50, address=f"192.0.2.{host}") <= HERE.at_once
    assert signed_in(database)


def test_attempts_at_one_address_do_not_lock_out_all_behind_it(database, anna):
    assert guess(database, 50, "ben") == HERE.at_once
    assert signed_in(database)
    for _ in range(2 * ADDRESS.at_once):  # right ones do not use anything up
        signed_in(database)


def test_an_address_has_a_limit_for_all_names_and_no_other_address_feels_it(database, anna):
    looked_at = sum(guess(database, 1, f"guess {n}") for n in range(ADDRESS.at_once + 20))
    assert looked_at == ADDRESS.at_once
    with pytest.raises(TooManyAttempts):
        signed_in(database)
    assert signed_in(database, address="10.0.0.2")


def test_all_of_an_ipv6_network_is_one_address(database, anna):
    looked_at = sum(guess(database, 2, address=f"2001:db8::{n:x}") for n in range(1, 9))
    assert looked_at == HERE.at_once
    assert guess(database, 1, address="2001:db8:0:1::1") == 1
    assert guess(database, HERE.at_once + 1, address="::ffff:10.0.0.9") == HERE.at_once
    assert guess(database, 1, address="10.0.0.9") == 0


def test_a_known_browser_gets_in_while_the_name_is_guessed_everywhere(database, anna):
    first = sign_in.sign_in(database, "anna", PASSWORD, Browser("10.0.0.1"))
    for n in range(NAME.at_once):
        guess(database, 1, address=f"192.0.2.{n}")
    with pytest.raises(TooManyAttempts):
        signed_in(database, address="10.0.0.2")
    with pytest.raises(TooManyAttempts):
        signed_in(database, address="10.0.0.2", known_cookie="made up")
    known = Browser("10.0.0.2", known_cookie=first.known_cookie)
    assert sign_in.sign_in(database, "anna", PASSWORD, known).known_cookie == first.known_cookie
    # It is known for anna only, and its attempts have a limit of their own.
    add_user(database, "ben")
    assert guess(database, 30, known_cookie=first.known_cookie) == HERE.at_once
    assert guess(database, 30, "ben", "10.0.0.9", known_cookie=first.known_cookie) == HERE.at_once
    assert guess(database, 30, "ben", "10.0.0.9") == 0


def test_users_of_one_browser_are_all_known_there_until_their_password_is_set(database, anna):
    cookie = sign_in.sign_in(database, "anna", PASSWORD, Browser("10.0.0.1")).known_cookie
    ben = add_user(database, "ben")
    shared = Browser("10.0.0.1", known_cookie=cookie)
    assert sign_in.sign_in(database, "ben", PASSWORD, shared).known_cookie == cookie
    with database.transaction() as session:
        made = new_hash("another good one", "ben")
        accounts.set_password(session, ben, made, OPERATOR, keep_tokens=True)
    with database.reading() as session:
        assert sign_in.is_known(session, "anna", shared)
        assert not sign_in.is_known(session, "ben", shared)


def test_a_browsers_cookie_that_is_not_ours_is_replaced(database, anna):
    planted = Browser("10.0.0.1", known_cookie="planted")
    assert sign_in.sign_in(database, "anna", PASSWORD, planted).known_cookie != "planted"


def test_known_browsers_are_forgotten_by_count(database, anna, monkeypatch):
    monkeypatch.setattr(sign_in, "BROWSERS_KNOWN", 3)
    for _ in range(5):
        signed_in(database)
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(KnownBrowser)) == 3


def at_once(number, function):
    """Calls a function in as many threads, all at the same moment."""
    barrier = threading.Barrier(number)

    def call(_):
        barrier.wait()
        return function()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(call, range(number)))


def test_of_many_attempts_at_one_moment_no_more_than_the_limit_are_looked_at(database, anna):
    looked_at = sum(at_once(40, lambda: guess(database, 1)))
    assert looked_at == HERE.at_once


def test_users_who_sign_in_at_one_moment_all_get_in(database, anna):
    with database.transaction() as session:  # which is renewed by the first of them
        old = passwords.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
        accounts.user_named(session, "anna").password_hash = old.hash(PASSWORD)
    cookies = at_once(8, lambda: signed_in(database))
    assert all(actor(database, cookie) for cookie in cookies)


def test_no_password_is_looked_at_in_a_transaction(database, anna, monkeypatch):
    """Another transaction can write meanwhile, and what was counted is committed."""
    looked_at = []

    def looking(password_hash, password):
        with database.transaction() as session:
            counted = session.scalar(select(func.count()).select_from(PasswordAttempts))
            assert counted == 3
        looked_at.append(password)
        return matches(password_hash, password)

    matches = passwords.matches
    monkeypatch.setattr(passwords, "matches", looking)
    assert guess(database, 1) == 1
    signed_in(database)
    assert looked_at == ["wrong", PASSWORD]


@pytest.mark.parametrize("meanwhile", ["disabled", "another password"])
def test_what_was_changed_while_the_password_was_looked_at_counts(
    database, anna, monkeypatch, meanwhile
):
    def looking(password_hash, password):
        right = matches(password_hash, password)
        with database.transaction() as session:
            user = accounts.locked(session, "anna")
            if meanwhile == "disabled":
                accounts.set_disabled(session, user, True, OPERATOR)
            else:
                made = new_hash("another good one", "anna")
                accounts.set_password(session, user, made, OPERATOR, keep_tokens=True)
        return right

    matches = passwords.matches
    monkeypatch.setattr(passwords, "matches", looking)
    with pytest.raises(SignInRefused):
        signed_in(database)


def change(database, actor, current, password="another good one"):
    sign_in.change_password(database, actor, current, password, keep_tokens=False)


def test_guesses_at_the_current_password_are_limited_and_concern_this_session_only(database, anna):
    stolen, own = (actor(database, signed_in(database)) for _ in range(2))
    for _ in range(HERE.at_once):
        with pytest.raises(Permanent, match="the current password is wrong"):
            change(database, stolen, "wrong")
    with pytest.raises(TooManyAttempts):
        change(database, stolen, PASSWORD)
    assert signed_in(database)
    change(database, own, PASSWORD)
    assert signed_in(database, password="another good one")


def test_a_password_cannot_be_changed_by_a_session_that_has_just_ended(database, anna, monkeypatch):
    cookie = signed_in(database)
    user = actor(database, cookie)
    hashed = passwords.new_hash

    def hashing(password, name):
        with database.transaction() as session:
            sessions.end_all(session, anna)
        return hashed(password, name)

    monkeypatch.setattr(passwords, "new_hash", hashing)
    with pytest.raises(Permanent, match="may not do that any more"):
        change(database, user, PASSWORD)
    monkeypatch.undo()
    assert signed_in(database)


def test_attempts_that_no_longer_count_are_forgotten(database, anna, turn):
    guess(database, 1)
    turn(attempts.LONGEST_S + 1)
    guess(database, 1, "ben", "10.0.0.2")
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(PasswordAttempts)) == 3
