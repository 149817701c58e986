"""Who makes a request, and what they may do: then, and when something changes."""

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit import Participant
from db.models import ApiToken, Permission, User, UserRole, WebSession
from lumbar.errors import Permanent


class NoLongerAllowed(Permanent):
    """What was allowed a moment ago is not any more."""


@dataclass(frozen=True)
class Actor:
    """Who makes a request, and what they may do.

    Known by a browser's session, which has a CSRF token, or by a program's token. ``needs`` is the
    permission by which the request was admitted.
    """

    user_id: int
    name: str
    role: UserRole
    permissions: frozenset[Permission]
    address: str = ""  # of the request
    csrf_token: str | None = field(default=None, repr=False)
    session_id: int | None = None
    token_id: int | None = None
    needs: Permission = Permission.READ

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    @property
    def participant(self) -> Participant:
        """As the audit trail names them."""
        return _User(self.name, self.address, self)

    def require(self, session: Session, *, alone: bool = False) -> None:
        """Makes sure, in the transaction of a change, that the actor may still make it.

        Until that ends, nobody can disable the user, change the role, or end session or token.
        ``alone``: nor may another transaction of the same user run, as it might lock the same rows.

        Raises:
            NoLongerAllowed: the user, the role, the session or the token has changed meanwhile.
        """
        role = session.scalar(
            select(User.role)
            .where(User.id == self.user_id, User.disabled_at.is_(None))
            .with_for_update(read=not alone)
        )
        credential = (
            select(ApiToken.id).where(ApiToken.id == self.token_id, ApiToken.revoked_at.is_(None))
            if self.session_id is None
            else select(WebSession.id).where(WebSession.id == self.session_id)
        )
        known = session.scalar(credential.with_for_update(read=True)) is not None
        # a token's scopes never change
        if not known or role is None or self.needs not in self.permissions & role.permissions:
            raise NoLongerAllowed(f"{self.name} may not do that any more; sign in again")


@dataclass(frozen=True)
class _User(Participant):
    """A user in the audit trail; the same one in whatever browser."""

    actor: Actor | None = field(default=None, compare=False, repr=False)

    def require(self, session: Session) -> None:
        if self.actor is not None:
            self.actor.require(session)
