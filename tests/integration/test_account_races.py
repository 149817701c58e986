"""Who may, and who is the last, is decided in the transaction that changes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from db import accounts, api_tokens, sessions, studies
from db.actors import NoLongerAllowed
from db.models import Review, User, UserRole
from tests.factories.accounts import OPERATOR, add_user, signed_in
from tests.integration.site_with_studies import SEVERE_UID, add_studies
from tests.integration.web_client import browser_client, count, token_client
from web import auth
from web.app import create_app

ROUNDS = 5
CHANGES = [{"role": "viewer"}, {"disabled": "true"}]


@pytest.fixture
def app(site):
    return create_app(site)


def administrators(site, number):
    """Administrators' browsers."""
    app = create_app(site)
    return [browser_client(app, UserRole.ADMIN, f"admin {n}") for n in range(number)]


def enabled_administrators(site) -> int:
    with site.database.reading() as session:
        users = accounts.users(session)
    return sum(user.role is UserRole.ADMIN and user.disabled_at is None for user in users)


def at_once(calls):
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.mark.parametrize("form", CHANGES)
@pytest.mark.parametrize("number", [2, 4])
def test_administrators_who_lock_each_other_out_at_one_moment_leave_one(site, form, number):
    def lock_out(browser, n):
        path = f"/users/admin {(n + 1) % number}"
        return lambda: browser.submit(path, **form).status_code

    for _ in range(ROUNDS):
        browsers = administrators(site, number)
        statuses = at_once([lock_out(browser, n) for n, browser in enumerate(browsers)])
        assert set(statuses) <= {303, 403, 401, 409}, statuses
        assert enabled_administrators(site) >= 1
        with site.database.transaction() as session:
            for user in accounts.users(session):
                user.role, user.disabled_at = UserRole.ADMIN, None


@pytest.mark.parametrize("form", CHANGES)
def test_of_two_commands_at_one_moment_one_leaves_an_administrator(site, form):
    for name in ("anna", "ben"):
        add_user(site.database, name, UserRole.ADMIN)

    def lock_out(name):
        with site.database.transaction() as session:
            user = accounts.locked(session, name)
            if "role" in form:
                accounts.set_role(session, user, UserRole.VIEWER, OPERATOR)
            else:
                accounts.set_disabled(session, user, True, OPERATOR)

    def attempt(name):
        try:
            lock_out(name)
        except accounts.LastAdministrator:
            return "refused"
        return "done"

    outcomes = at_once([lambda: attempt("anna"), lambda: attempt("ben")])
    assert sorted(outcomes) == ["done", "refused"]
    assert enabled_administrators(site) == 1


ENDS = {
    "disabled": lambda session, user: accounts.set_disabled(session, user, True, OPERATOR),
    "demoted": lambda session, user: accounts.set_role(session, user, UserRole.VIEWER, OPERATOR),
    "signed out": lambda session, user: sessions.end_all(session, user),
    "revoked": lambda session, user: api_tokens.revoke_all(session, user, OPERATOR),
}


@pytest.mark.parametrize(
    ("client_of", "end"),
    [
        *((browser_client, end) for end in ("disabled", "demoted", "signed out")),
        *((token_client, end) for end in ("disabled", "demoted", "revoked")),
    ],
)
@pytest.mark.parametrize(
    ("role", "path", "form"),
    [
        (UserRole.ADMIN, "/users", {"name": "eve", "password": "a good long one", "role": "admin"}),
        (UserRole.ADMIN, "/users/ben", {"role": "admin"}),
        (UserRole.ADMIN, "/users/ben/password", {"password": "a good long one"}),
        (UserRole.ADMIN, "/tokens", {"user": "ben", "name": "eve", "scopes": "read"}),
        (UserRole.ADMIN, f"/studies/{SEVERE_UID}/delete", {"reason": "why not"}),
        (UserRole.OPERATOR, f"/studies/{SEVERE_UID}/requeue", {}),
        (UserRole.READER, f"/studies/{SEVERE_UID}/read", {}),
        (UserRole.READER, f"/studies/{SEVERE_UID}/findings/1/review", {"severity": "severe"}),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_is_no_longer_allowed_when_it_is_made_changes_nothing(
    site, app, monkeypatch, client_of, end, role, path, form
):
    """The right is lost after the request was admitted, before its transaction."""
    add_studies(site)
    add_user(site.database, "spare", UserRole.ADMIN)
    add_user(site.database, "ben")
    client = client_of(app, role)
    before = state(site)
    admitted = auth.signed_in

    def admitting(request, of_site):
        actor = admitted(request, of_site)
        with of_site.database.transaction() as session:
            ENDS[end](session, accounts.locked(session, role.value))
        return actor

    monkeypatch.setattr("web.auth.signed_in", admitting)
    response = client.submit(path, **form)
    assert response.status_code == 403, response.text
    in_person = client_of is token_client and path.startswith(("/users", "/tokens"))
    why = "token cannot change who may sign in" if in_person else "may not do that any more"
    assert why in response.text
    assert state(site) == before


def state(site):
    """What the requests would change."""
    with site.database.reading() as session:
        ben = accounts.user_named(session, "ben")
        users = sorted(user.name for user in accounts.users(session))
        tokens = [t.name for t in api_tokens.tokens(session, ben.id)]
    study = site_study(site)
    return users, ben.role, ben.password_hash, tokens, study, count(site, Review)


def site_study(site):
    with site.database.reading() as session:
        study = studies.find(session, SEVERE_UID)
        return study.state, study.read_at, study.images_removed_at, study.revision


def test_a_change_waits_for_the_one_that_takes_the_right_away(site):
    """On both databases: the right is lost in a transaction that is not committed yet."""
    add_user(site.database, "anna", UserRole.ADMIN)
    add_user(site.database, "ben", UserRole.ADMIN)
    cookie = signed_in(site.database, "ben")
    with site.database.reading() as session:
        ben = sessions.by_cookie(session, cookie)
    began, outcome = threading.Event(), []

    def change():
        began.set()
        try:
            with site.database.transaction() as session:
                accounts.add_user(session, "eve", "none", UserRole.ADMIN, ben.participant)
            outcome.append("done")
        except NoLongerAllowed:
            outcome.append("refused")

    thread = threading.Thread(target=change)
    with site.database.transaction() as session:
        accounts.set_disabled(session, accounts.locked(session, "ben"), True, OPERATOR)
        thread.start()
        assert began.wait(10)
        thread.join(0.2)  # it cannot end before this transaction does
        assert outcome == []
    thread.join(30)
    assert outcome == ["refused"]
    assert count(site, User) == 2
