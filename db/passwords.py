"""Passwords: which are accepted, and their hashes (Argon2id, RFC 9106).

A hash takes 64 MiB and some tens of milliseconds of every core on purpose. So it is never made
inside a transaction, and a service makes few at a time (``web/password_queue.py``).
"""

import os
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from threading import Lock, get_native_id
from typing import NewType

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from lumbar.errors import Permanent

MIN_PASSWORD, MAX_PASSWORD = 12, 1024
MAX_ESTIMATED = 32  # characters that zxcvbn looks at; 72 may take it seconds, 32 takes 0.05
# of zxcvbn's five; below it a password is among the first 10^8 guesses
LEAST_SCORE = 3
FIRST_GUESSES = ("lumbar-triage", "lumbartriage", "lumbar", "triage", "radiology", "dicom")

PasswordHash = NewType("PasswordHash", str)

NICENESS = 10  # of threads that make hashes: everything else comes first

_hasher = PasswordHasher()
_estimating = Lock()  # zxcvbn keeps the words about a user in a global


def _give_way() -> None:
    """Lowers the priority of this thread, which Argon2's own threads inherit (Linux)."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICENESS)


# Threads of their own, so that nobody holds a lock or serves a page at the low priority.
_threads = ThreadPoolExecutor(2, "hashes", _give_way)


def new_hash(password: str, user: str) -> PasswordHash:
    """The hash of a new password of the user with this name.

    Raises:
        Permanent: it is too short, too long, easily guessed, or has control characters.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Permanent(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if any(unicodedata.category(character) == "Cc" for character in password):
        raise Permanent("a password has no control characters")
    prepared = _prepared(password)
    if _is_easily_guessed(prepared, user):
        raise Permanent(
            "this password would be guessed soon: it is common, or made of the user's or the "
            "product's name; take several unrelated words, for instance"
        )
    return _hashed(prepared)


def matches(password_hash: str, password: str) -> bool:
    """Whether it is the password; None has the hash ``placeholder_hash``."""
    if len(password) > MAX_PASSWORD:
        return False
    # A hash from before passwords were prepared is of the characters as they were typed.
    return any(_verified(password_hash, text) for text in {_prepared(password): 0, password: 0})


def renewed(password_hash: str, password: str) -> PasswordHash | None:
    """A hash with today's parameters, of the prepared password; None if it is one already."""
    prepared = _prepared(password)
    if not _hasher.check_needs_rehash(password_hash) and (
        prepared == password or _verified(password_hash, prepared)
    ):
        return None
    return _hashed(prepared)


@cache
def placeholder_hash() -> str:
    """The hash that a password is checked against if there is no such user.

    Without it, the response time would show whether the name exists.
    """
    return _hashed(secrets.token_hex())


def _prepared(password: str) -> str:
    """The same text for the same password, however a keyboard composes its characters.

    As the OpaqueString profile of RFC 8265, 4.2.2: spaces are ASCII ones, and NFC.
    """
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return unicodedata.normalize("NFC", spaced)


def _hashed(text: str) -> PasswordHash:
    return PasswordHash(_threads.submit(_hasher.hash, text).result())


def _verified(password_hash: str, text: str) -> bool:
    try:
        return _threads.submit(_hasher.verify, password_hash, text).result()
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def _is_easily_guessed(password: str, user: str) -> bool:
    """By the guesses that zxcvbn estimates (Wheeler, USENIX Security 2016), which knows 30,000
    common passwords, words, names, keyboards, dates and repetitions.
    """
    from zxcvbn import zxcvbn  # reads its lists, which other commands can spare

    with _estimating:
        estimate = zxcvbn(password[:MAX_ESTIMATED], [user, *user.split(), *FIRST_GUESSES])
    return int(estimate["score"]) < LEAST_SCORE
