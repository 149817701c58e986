"""Which passwords are accepted, and what their hashes match."""

import unicodedata

import pytest
from argon2 import PasswordHasher, Type

from db import passwords
from lumbar.errors import Permanent

GOOD = "correct horse battery"


def test_a_hash_costs_what_rfc_9106_recommends_where_memory_is_short(production_hasher):
    assert production_hasher.time_cost >= 3
    assert production_hasher.memory_cost >= 64 * 1024  # KiB
    assert production_hasher.type is Type.ID


@pytest.mark.parametrize(
    "common",
    [
        "password1234",
        "Passw0rd2024!",
        "qwertyuiop12",
        "123456789012",
        "aaaaaaaaaaaa",
        "letmeinplease",
        "hunter2hunter2",
        "p@ssw0rd" * 9,
        "a" * 1024,
        "Katharina1234",
        "katharinakatharina",
        "lumbar-triage-1",
        "lumbartriage12",
    ],
)
def test_a_password_that_is_guessed_first_is_refused(common):
    with pytest.raises(Permanent, match="would be guessed soon"):
        passwords.new_hash(common, "katharina")


@pytest.mark.parametrize("good", [GOOD, "another good one", "rhs92ksl0xz5", "Straße im Grünen"])
def test_any_other_is_accepted_and_matches_itself_only(good):
    made = passwords.new_hash(good, "katharina")
    assert made.startswith("$argon2id$")
    assert good not in made
    assert passwords.matches(made, good)
    assert not passwords.matches(made, good + " ")
    assert not passwords.matches(made, good.swapcase())


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "12 to 1024 characters"),
        ("x" * 1025, "12 to 1024 characters"),
        ("correct\x00horse battery", "no control characters"),
        ("correct\nhorse battery", "no control characters"),
    ],
)
def test_a_password_of_the_wrong_form_is_refused(password, reason):
    with pytest.raises(Permanent, match=reason):
        passwords.new_hash(password, "anna")


def test_however_a_keyboard_composes_it_a_password_is_the_same():
    composed, spaced = "Grüße aus Köln", "Grüße\u00a0aus\u3000Köln"
    decomposed = unicodedata.normalize("NFD", composed)
    assert decomposed != composed
    for typed in (composed, decomposed, spaced):
        made = passwords.new_hash(typed, "anna")
        assert all(passwords.matches(made, other) for other in (composed, decomposed, spaced))


def test_a_hash_of_the_characters_as_they_were_typed_matches_still_and_is_renewed():
    typed = unicodedata.normalize("NFD", "Grüße aus Köln")
    old = passwords._hasher.hash(typed)
    assert passwords.matches(old, typed)
    new = passwords.renewed(old, typed)
    assert passwords.matches(new, unicodedata.normalize("NFC", typed))
    assert passwords.renewed(new, typed) is None


def test_a_hash_with_older_parameters_is_renewed():
    old = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(GOOD)
    new = passwords.renewed(old, GOOD)
    assert passwords.matches(new, GOOD)
    assert passwords.renewed(new, GOOD) is None


@pytest.mark.parametrize("stored", ["", "none", "$argon2id$v=19$damaged"])
def test_what_is_no_hash_matches_nothing(stored):
    assert not passwords.matches(stored, GOOD)


@pytest.mark.parametrize("odd", ["", "x" * 5000, "\ud800" * 12, "\x00" * 12])
def test_odd_attempts_are_wrong_ones(odd):
    assert not passwords.matches(passwords.placeholder_hash(), odd)


def test_looking_at_a_password_takes_a_moment_whatever_it_is(monkeypatch):
    """zxcvbn takes seconds for long texts of letters that it may read in many ways."""
    looked_at = []
    found = {"score": 4}
    monkeypatch.setattr("zxcvbn.zxcvbn", lambda text, words: looked_at.append(text) or found)
    passwords.new_hash("4@8({[<369!1|0$5+7%2" * 50, "vera")
    assert len(looked_at[0]) <= 32
