"""Person names are the same however they are padded, written in upper case or composed."""

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.person_name import same_name

components = st.text("aÄäßéŠ山か -'", max_size=4)
groups = st.lists(components, max_size=5).map("^".join)
names = st.lists(groups, max_size=3).map("=".join)
padding = st.text(" ", max_size=2)


@given(names)
def test_every_name_is_the_same_as_itself(name: str) -> None:
    assert same_name(name, name)


@given(names, names)
def test_the_order_of_two_names_does_not_matter(a: str, b: str) -> None:
    assert same_name(a, b) is same_name(b, a)


@given(names, names, st.data())
def test_padding_case_and_composition_do_not_matter(a: str, b: str, data: st.DataObject) -> None:
    assert same_name(written_otherwise(a, data), b) is same_name(a, b)


def written_otherwise(name: str, data: st.DataObject) -> str:
    padded = [
        "^".join(
            data.draw(padding) + component + data.draw(padding) for component in group.split("^")
        )
        + data.draw(st.sampled_from(["", "^", "^^", "^ ^"]))
        for group in name.split("=")
    ]
    written = "=".join(padded) + data.draw(st.sampled_from(["", "=", "==", "^="]))
    changed = data.draw(st.sampled_from([str.upper, str.lower, str.casefold, str]))(written)
    return normalize(data.draw(st.sampled_from(["NFC", "NFD"])), changed)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Doe^Jane", "DOE^JANE^^^"),
        ("Doe^Jane ", "Doe ^ Jane=="),
        ("Müller^Zoë", "MU\u0308LLER^ZOE\u0308"),
        ("Groß^A", "GROSS^A"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "YAMADA^TAROU"),
        ("Yamada^Tarou=山田^太郎", "=山田^太郎"),
        ("", " ^ ="),
    ],
)
def test_one_name(a: str, b: str) -> None:
    assert same_name(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Doe^Jane", "Doe^John"),
        ("Doe^Jane", "Doe^Jane^A"),
        ("Doe^Jane", "Doe"),
        ("Doe^Jane", "Jane^Doe"),
        ("Doe^^Jane", "Doe^Jane"),
        ("Müller^A", "Muller^A"),
        ("Van Dyk^A", "VanDyk^A"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^次郎"),
        ("Yamada^Tarou", "=山田^太郎"),
        ("Doe^Jane", ""),
    ],
)
def test_two_names(a: str, b: str) -> None:
    assert not same_name(a, b)
