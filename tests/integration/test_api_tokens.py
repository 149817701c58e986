"""What a program's token permits, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from db import accounts, api_tokens
from db.audit import Participant
from db.models import ApiToken, Permission, UserRole
from lumbar.errors import Permanent
from tests.factories.accounts import OPERATOR, add_user


@pytest.fixture
def anna(database):
    return add_user(database, "anna")


def token(database, scopes, days=1.0):
    with database.transaction() as session:
        anna = accounts.user_named(session, "anna")
        return api_tokens.new_token(session, anna, "ris", scopes, days, OPERATOR)


def test_a_token_allows_its_scopes_within_its_users_current_permissions(database, anna):
    both = {Permission.READ, Permission.REVIEW}
    secret = token(database, both)
    with database.transaction() as session:
        assert api_tokens.by_token(session, secret).permissions == both
        accounts.set_role(session, accounts.locked(session, "anna"), UserRole.VIEWER, OPERATOR)
        assert api_tokens.by_token(session, secret).permissions == {Permission.READ}


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
            api_tokens.revoke_token(session, row.id, OPERATOR)
        elif end == "disable":
            accounts.set_disabled(session, accounts.locked(session, "anna"), True, OPERATOR)
        session.flush()
        assert api_tokens.by_token(session, secret + ("x" if end == "guess" else "")) is None


def test_another_users_token_cannot_be_revoked(database, anna):
    token(database, {Permission.READ})
    with database.transaction() as session, pytest.raises(Permanent, match="there is no token 1"):
        api_tokens.revoke_token(session, 1, Participant("eve"), user_id=anna.id + 1)
