"""What is wrong with a database, in one line, by the code that its driver gives; no values."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

# The first that an error's code begins with says what is wrong and what to do.
_MEANINGS = (
    ("SQLITE_FULL", "its disk is full; make room"),
    ("SQLITE_NOTADB", "the file is not a SQLite database; restore it from a backup"),
    ("SQLITE_CORRUPT", "the file is damaged; restore it from a backup"),
    ("SQLITE_READONLY", "it cannot be written; check its disk and the permissions of its folder"),
    ("SQLITE_PERM", "it cannot be opened; check its permissions"),
    ("SQLITE_CANTOPEN", "it cannot be opened; check its disk and the permissions of its folder"),
    ("SQLITE_IOERR", "its disk fails"),
    ("SQLITE_BUSY", "it is in use for too long"),
    ("53100", "its disk is full; make room"),
    ("53200", "its server has no memory left"),
    ("53300", "its server has too many connections; raise max_connections"),
    ("42501", "its user lacks a permission; grant it"),
)
_LOST = ("08", "57P")  # the connection was lost, or the server is shutting down or starting


def error_code(error: BaseException | None) -> str:
    """PostgreSQL's code of a driver's error (SQLSTATE), or SQLite's name; empty: it has none."""
    return getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or ""


def meaning(error: BaseException | None) -> str | None:
    """What a driver's error means and what to do; None: its code does not say."""
    code = error_code(error)
    return next((reason for prefix, reason in _MEANINGS if code.startswith(prefix)), None)


def is_of_connection(error: DBAPIError) -> bool:
    """Whether the server was lost, or never reached, rather than that it refused a statement."""
    code = error_code(error.orig)
    lost = not code and isinstance(error, OperationalError | InterfaceError)
    return error.connection_invalidated or lost or code.startswith(_LOST)


def kind_of(error: Exception) -> str:
    """The driver's name for an error, and its code; not its text, which may contain values."""
    driver_error = getattr(error, "orig", None) or error
    return " ".join(filter(None, (type(driver_error).__name__, error_code(driver_error))))
