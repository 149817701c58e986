"""Damaged PDUs and DIMSE messages, always the same for the same seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.hostile import wire
from tests.hostile.datasets import encoded, uid_of

UID = uid_of("fuzzed")
LENGTHS = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**24, 2**31, 2**32 - 2, 2**32 - 1)


@dataclass(frozen=True)
class Talk:
    """What one connection sends: all at once, or after an ordinary association request one by one for an answer."""

    messages: list[bytes]
    waits: bool


def talks(seed: int) -> Iterator[Talk]:
    """Without end: half of them PDUs torn in every way, half of them whole PDUs around damaged messages."""
    chance, valid = random.Random(seed), valid_messages()
    while True:
        if chance.random() < 0.5:
            messages = [valid[0]] if chance.random() < 0.8 else []
            messages += [_torn(chance, valid) for _ in range(chance.randint(1, 12))]
            if chance.random() < 0.2:
                chance.shuffle(messages)
            yield Talk(messages, waits=False)
        else:
            yield Talk([_framed(chance) for _ in range(chance.randint(1, 30))], waits=True)


def valid_messages() -> list[bytes]:
    """One of each kind that a peer may send."""
    return [
        wire.associate_rq(),
        wire.echo_rq(),
        b"".join(wire.store_rq(UID, encoded(UID))),
        wire.pdu(wire.RELEASE_RQ, bytes(4)),
        wire.pdu(wire.ABORT, bytes(4)),
        wire.pdu(wire.RELEASE_RP, bytes(4)),
        wire.pdu(wire.ASSOCIATE_AC, wire.associate_rq()[6:]),
    ]


def _torn(chance: random.Random, valid: list[bytes]) -> bytes:
    message = chance.choice(valid)
    return mutated(message, valid, chance) if chance.random() < 0.7 else message


def _framed(chance: random.Random) -> bytes:
    """A C-ECHO or C-STORE in whole PDUs whose command, dataset or PDV header is damaged."""
    echo, kind = wire.command_set(wire.C_ECHO_RQ, wire.VERIFICATION), chance.random()
    store, dataset = (
        wire.store_command(UID),
        encoded(uid_of("another")),
    )  # not as announced, so that none is kept
    context = wire.IMAGE if chance.random() < 0.95 else chance.randrange(256)
    if kind < 0.1:
        return wire.p_data(wire.ECHO, mutated(echo, [store], chance), command=True)
    if kind < 0.2:
        return wire.echo_rq()
    if kind < 0.3:
        store = mutated(store, [echo], chance)
    elif kind < 0.9:
        dataset = mutated(dataset, [encoded(UID), store], chance)
    else:
        dataset = chance.randbytes(chance.randrange(4000))
    last = chance.random() < 0.98
    return wire.p_data(context, store, command=True) + wire.p_data(
        context, dataset, command=False, last=last
    )


def mutated(message: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One to three changes: bits, lengths, cuts, repeats, splices, swaps, or bytes that mean nothing."""
    content = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content)) if content else 0
        size = chance.randrange(1, 64)
        match chance.randrange(9):
            case 0 if content:
                content[at] ^= 1 << chance.randrange(8)
            case 1 if content:
                content[at] = chance.randrange(256)
            case 2 if chance.random() < 0.3:
                del content[at:]
            case 3:
                content[at:at] = content[at : at + size]
            case 4:
                other = chance.choice(others)
                content = content[:at] + other[chance.randrange(len(other)) :]
            case 5 if len(content) > 6:  # a PDU's length, or an element's
                content[2:6] = chance.choice((len(content), *LENGTHS)).to_bytes(4, "big")
            case 6:  # a length anywhere
                width = chance.choice((2, 4))
                content[at : at + width] = (chance.choice(LENGTHS) % 256**width).to_bytes(
                    width, "little"
                )
            case 7:
                content[at : at + 2 * size] = (
                    content[at + size : at + 2 * size] + content[at : at + size]
                )
            case _:
                content[at:at] = chance.randbytes(size)
    return bytes(content)
