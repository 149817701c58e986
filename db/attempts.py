"""Limits of attempts at passwords: counted before each attempt, in one statement per key.

Every key has a number of attempts at once and gets one more every so many seconds. What is stored
is one time per key: until when the attempts made so far are spent (the generic cell rate algorithm
of ITU-T I.371). Refused attempts do not count, so nobody is kept out for longer by trying.
"""

from dataclasses import dataclass
from hashlib import sha256
from math import ceil

from sqlalchemy import case, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.models import PasswordAttempts
from db.types import read_clock
from lumbar.addresses import network_of
from lumbar.errors import Permanent

CLOCK_STEP_S = 60.0  # by which a clock that is kept right may be set back


@dataclass(frozen=True)
class Limit:
    """``at_once`` attempts, and one more every ``each_s`` seconds."""

    at_once: int
    each_s: float


HERE = Limit(10, 60)  # one name at one address; one known browser; one session
ADDRESS = Limit(100, 6)  # all names at one address: a ward behind one router
NAME = Limit(100, 60)  # one name at all addresses
LONGEST_S = max(limit.at_once * limit.each_s for limit in (HERE, ADDRESS, NAME))


class TooManyAttempts(Permanent):
    """No attempt is left for now; the password was not looked at."""

    def __init__(self, retry_after_s: int) -> None:
        minutes = ceil(retry_after_s / 60)
        super().__init__(
            f"too many attempts; try again in {minutes} minute{'s' if minutes > 1 else ''}"
        )
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Key:
    """Whose attempts are counted together; ``who`` is a digest."""

    who: str
    limit: Limit


Keys = tuple[Key, ...]


def by_stranger(name: str, address: str) -> Keys:
    """The keys of an attempt from a browser that is not known.

    In the order in which they are counted: where one refuses, the later ones do not count. An
    address can spend only its own share of a name, and no two attempts lock each other's rows.
    """
    network = network_of(address)
    return (
        _key(HERE, "name at address", name, network),
        _key(ADDRESS, "address", network),
        _key(NAME, "name", name),
    )


def by_known_browser(browser_id: int) -> Keys:
    """The keys of an attempt by a user from a browser in which they have signed in before."""
    return (_key(HERE, "browser", str(browser_id)),)


def by_session(session_id: int) -> Keys:
    """The keys of an attempt at the present password, by somebody signed in."""
    return (_key(HERE, "session", str(session_id)),)


def count(session: Session, keys: Keys) -> None:
    """Counts an attempt that is about to be made.

    The caller commits it before looking at the password. If this raises, what was counted for
    other keys need not be committed.

    Raises:
        TooManyAttempts: one of the keys has no attempt left.
    """
    now_s = read_clock(session).timestamp()
    for key in keys:
        if not _counted(session, key, now_s):
            spent = session.scalar(
                select(PasswordAttempts.spent_until_s).where(PasswordAttempts.who == key.who)
            )
            left = (spent or now_s) - now_s - (key.limit.at_once - 1) * key.limit.each_s
            raise TooManyAttempts(max(1, ceil(left)))


def succeeded(session: Session, keys: Keys) -> None:
    """The attempt was right: its first key begins anew, and the others are given it back."""
    session.execute(delete(PasswordAttempts).where(PasswordAttempts.who == keys[0].who))
    for key in keys[1:]:
        given_back = {"spent_until_s": PasswordAttempts.spent_until_s - key.limit.each_s}
        session.execute(
            update(PasswordAttempts).where(PasswordAttempts.who == key.who).values(given_back)
        )


def forget_old(session: Session) -> None:
    """Removes what no longer counts, as the last statement of a transaction."""
    now_s = read_clock(session).timestamp()
    spent = PasswordAttempts.spent_until_s
    old = select(PasswordAttempts.who).where(
        or_(spent < now_s, spent > now_s + LONGEST_S + CLOCK_STEP_S)
    )
    spent_keys = session.scalars(old.limit(1000).with_for_update(skip_locked=True)).all()
    session.execute(delete(PasswordAttempts).where(PasswordAttempts.who.in_(spent_keys)))


def _counted(session: Session, key: Key, now_s: float) -> bool:
    """Counts an attempt unless none is left: one statement, so that none is counted twice."""
    limit, spent = key.limit, PasswordAttempts.spent_until_s
    # Nothing of ours is spent for longer: the clock was ahead.
    believed = spent.between(now_s, now_s + limit.at_once * limit.each_s + CLOCK_STEP_S)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = (
        dialect.insert(PasswordAttempts)
        .values(who=key.who, spent_until_s=now_s + limit.each_s)
        .on_conflict_do_update(
            index_elements=[PasswordAttempts.who],
            set_={"spent_until_s": case((believed, spent), else_=now_s) + limit.each_s},
            where=or_(~believed, spent <= now_s + (limit.at_once - 1) * limit.each_s),
        )
        .returning(PasswordAttempts.who)
    )
    return session.execute(statement).first() is not None


def _key(limit: Limit, *parts: str) -> Key:
    return Key(sha256("\0".join(parts).encode()).hexdigest(), limit)
