"""Association requests are read whatever they hold, and every answer can be read by the peer."""

import random
from contextlib import suppress
from struct import unpack_from

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.pdu import A_ASSOCIATE_AC

from lumbar.setting_types import AE_TITLE
from scp.association import encode_command
from scp.association_request import NO_LIMIT, decode, printable_calling_ae_title
from scp.negotiation import Acceptor, Rejected
from tests.hostile.mutations import mutated
from tests.hostile.wire import associate_rq

ACCEPTOR = Acceptor("LUMBAR", (), {MRImageStorage: [ImplicitVRLittleEndian]})


@settings(max_examples=1000)
@given(st.integers(0, 2**32))
def test_any_request_is_answered_or_cannot_be_decoded(seed):
    content = mutated(associate_rq(), [associate_rq()], random.Random(seed))
    with suppress(ValueError, Rejected):
        request = decode(content)
        pdu, accepted = ACCEPTOR.accept(request)
        assert pdu[2:6] == (len(pdu) - 6).to_bytes(4)
        assert accepted.keys() <= {context.number for context in request.contexts}
        assert all(context.abstract_syntax == MRImageStorage for context in accepted.values())


def test_an_acceptance_is_what_pynetdicom_reads():
    contexts = ((3, MRImageStorage, ("1.2", ImplicitVRLittleEndian)),)
    pdu, accepted = ACCEPTOR.accept(decode(associate_rq(contexts)))
    answer = A_ASSOCIATE_AC()
    answer.decode(pdu)
    primitive = answer.to_primitive()
    (context,) = primitive.presentation_context_definition_results_list
    assert (context.context_id, context.result) == (3, 0)
    assert context.transfer_syntax == [accepted[3].transfer_syntax] == [ImplicitVRLittleEndian]
    assert primitive.maximum_length_received
    assert primitive.implementation_class_uid


@given(st.binary(max_size=16))
@example(b"MR\\x1b")
@example(b"\xff" * 16)
def test_a_calling_ae_title_is_printable_in_the_log_and_looks_like_no_other(title):
    content = associate_rq(calling=title)
    shown, read = printable_calling_ae_title(content), decode(content).calling_ae_title
    assert len(shown) <= 64
    assert shown.isascii()
    assert shown.isprintable()
    assert read == shown if read else not AE_TITLE.fullmatch(shown)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=300))
def test_a_response_is_sent_in_fragments_that_the_peer_can_receive(limit, command):
    content, received, last = encode_command(command, 3, limit), b"", False
    while content:
        assert not last
        kind, length = unpack_from(">BxL", content)
        size, number, control = unpack_from(">LBB", content, 6)
        assert (kind, number, size) == (4, 3, length - 4)
        assert limit == NO_LIMIT or length <= max(limit, 8)
        received += content[12 : 6 + length]
        last = control == 3
        assert control & 1
        assert last or length % 2 == 0
        content = content[6 + length :]
    assert last
    assert received == command


@pytest.mark.parametrize("size", [0, 1, 5, 73])
def test_a_request_without_its_fixed_part_cannot_be_decoded(size):
    with pytest.raises(ValueError, match="association request cannot be decoded"):
        decode(associate_rq()[:size])
    assert printable_calling_ae_title(associate_rq()[:size]) in ("", "HOSTILE")
