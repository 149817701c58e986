"""Users, and browsers that sign in."""

from db import accounts, passwords, sign_in
from db.audit import Participant
from db.database import Database
from db.models import User, UserRole
from db.sign_in import Browser

PASSWORD = "correct horse battery"
OPERATOR = Participant("test")


def add_user(
    database: Database, name: str, role: UserRole = UserRole.READER, password: str = PASSWORD
) -> User:
    password_hash = passwords.new_hash(password, name)
    with database.transaction() as session:
        return accounts.add_user(session, name, password_hash, role, OPERATOR)


def signed_in(
    database: Database,
    name: str = "anna",
    password: str = PASSWORD,
    address: str = "10.0.0.1",
    **cookies: str,
) -> str:
    """The cookie of a new session, in a browser with the given ``cookies``."""
    return sign_in.sign_in(database, name, password, Browser(address, "", **cookies)).cookie
