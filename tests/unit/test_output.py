"""What commands print for programs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.output import Format, print_records

RECORDS = st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.none() | st.integers()}))


@given(records=RECORDS)
def test_json_is_a_list_without_control_characters_whatever_the_texts(records):
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.echo", lambda text, nl: printed.append(text))
        print_records(records, ("b", "a"), Format.JSON)
    text = "".join(printed)
    assert json.loads(text) == records
    assert all(list(record) == ["b", "a"] for record in json.loads(text))
    assert not set(text) & {"\x1b", "\x9b", "\u202e", "\r", "\x00"}


@pytest.mark.parametrize("form", [Format.JSON, Format.CSV])
def test_records_are_printed_as_they_arrive(form, monkeypatch):
    printed, lengths = [], []
    monkeypatch.setattr("typer.echo", lambda text, nl: printed.append(text))

    def records():
        for number in range(5000):
            lengths.append(len("".join(printed)))
            yield {"number": number}

    print_records(records(), ("number",), form)
    assert lengths[0] == 0
    assert lengths[2500] > 1000
    assert "4999" in printed[-1] + printed[-2]
