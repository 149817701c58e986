"""Command sets are read and written as pynetdicom does."""

from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import decode as decode_dataset
from pynetdicom.dsutils import encode as encode_dataset
from pynetdicom.sop_class import Verification

from scp import command_set
from scp.command_set import Command, CommandError, decode, encode_response

UID = "1.2.826.0.1.3680043.8.498.1"


def encoded(message, primitive):
    message.primitive_to_message(primitive)
    return encode_dataset(message.command_set, True, True)


def store_request(number):
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = number, 0
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, UID
    return encoded(C_STORE_RQ(), primitive)


@given(st.integers(0, 65535))
def test_a_c_store_request_is_read(number):
    # pynetdicom sets CommandDataSetType only when it sends
    command = replace(decode(store_request(number)), has_data_set=True)
    assert command == Command(
        command_set.C_STORE_RQ, number, MRImageStorage, UID, has_data_set=True
    )


def test_a_c_echo_request_is_read():
    primitive = C_ECHO()
    primitive.MessageID, primitive.AffectedSOPClassUID = 7, Verification
    command = decode(encoded(C_ECHO_RQ(), primitive))
    assert command == Command(command_set.C_ECHO_RQ, 7, Verification, "", has_data_set=False)


@given(st.integers(0, 65535), st.sampled_from([0x0000, 0xA700, 0xC000]))
def test_a_response_is_what_pynetdicom_reads(number, status):
    request = Command(command_set.C_STORE_RQ, number, MRImageStorage, UID, has_data_set=True)
    message = C_STORE_RSP()
    content = encode_response(request, status)
    message.command_set = decode_dataset(BytesIO(content), True, True)
    response = message.message_to_primitive()
    assert (response.MessageIDBeingRespondedTo, response.Status) == (number, status)
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (MRImageStorage, UID)
    assert message.command_set.CommandGroupLength == len(content) - 12


@given(st.binary(max_size=300))
def test_any_bytes_are_a_command_or_refused(content):
    with suppress(CommandError):
        assert decode(content).field


@given(st.data())
def test_a_request_that_is_cut_short_is_refused(data):
    content = store_request(1)
    with pytest.raises(CommandError):
        decode(content[: data.draw(st.integers(0, len(content) - 30))])
