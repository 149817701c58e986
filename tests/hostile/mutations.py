"""Damaged PDUs and DIMSE messages, reproducible by seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.hostile import wire
from tests.hostile.datasets import encoded, uid_of

UID = uid_of("fuzzed")
LENGTHS = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**24, 2**31, 2**32 - 2, 2**32 - 1)


@dataclass(frozen=True)
class Conversation:
    """What one connection sends: all at once, or, once associated, one message per response."""

    messages: list[bytes]
    waits_for_responses: bool


def conversations(seed: int) -> Iterator[Conversation]:
    """Endless: half are damaged PDUs, half are whole PDUs around damaged messages."""
    rng, valid = random.Random(seed), valid_messages()
    while True:
        if rng.random() < 0.5:
            messages = [valid[0]] if rng.random() < 0.8 else []
            messages += [_damaged_pdu(rng, valid) for _ in range(rng.randint(1, 12))]
            if rng.random() < 0.2:
                rng.shuffle(messages)
            yield Conversation(messages, waits_for_responses=False)
        else:
            yield Conversation(
                [_damaged_message(rng) for _ in range(rng.randint(1, 30))], waits_for_responses=True
            )


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


def _damaged_pdu(rng: random.Random, valid: list[bytes]) -> bytes:
    message = rng.choice(valid)
    return mutated(message, valid, rng) if rng.random() < 0.7 else message


def _damaged_message(rng: random.Random) -> bytes:
    """A C-ECHO or C-STORE in whole PDUs whose command, dataset or PDV header is damaged."""
    echo, kind = wire.command_set(wire.C_ECHO_RQ, wire.VERIFICATION), rng.random()
    store = wire.store_command(UID)
    dataset = encoded(uid_of("another"))  # not the announced one, so that none is stored
    context = wire.IMAGE if rng.random() < 0.95 else rng.randrange(256)
    if kind < 0.1:
        return wire.p_data(wire.ECHO, mutated(echo, [store], rng), command=True)
    if kind < 0.2:
        return wire.echo_rq()
    if kind < 0.3:
        store = mutated(store, [echo], rng)
    elif kind < 0.9:
        dataset = mutated(dataset, [encoded(UID), store], rng)
    else:
        dataset = rng.randbytes(rng.randrange(4000))
    last = rng.random() < 0.98
    return wire.p_data(context, store, command=True) + wire.p_data(
        context, dataset, command=False, last=last
    )


def mutated(message: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to three changes: bits, lengths, cuts, repeats, splices, swaps, or random bytes."""
    content = bytearray(message)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content)) if content else 0
        size = rng.randrange(1, 64)
        match rng.randrange(9):
            case 0 if content:
                content[at] ^= 1 << rng.randrange(8)
            case 1 if content:
                content[at] = rng.randrange(256)
            case 2 if rng.random() < 0.3:
                del content[at:]
            case 3:
                content[at:at] = content[at : at + size]
            case 4:
                other = rng.choice(others)
                content = content[:at] + other[rng.randrange(len(other)) :]
            case 5 if len(content) > 6:  # a PDU's length, or an element's
                content[2:6] = rng.choice((len(content), *LENGTHS)).to_bytes(4, "big")
            case 6:  # a length anywhere
                width = rng.choice((2, 4))
                content[at : at + width] = (rng.choice(LENGTHS) % 256**width).to_bytes(
                    width, "little"
                )
            case 7:
                content[at : at + 2 * size] = (
                    content[at + size : at + 2 * size] + content[at : at + size]
                )
            case _:
                content[at:at] = rng.randbytes(size)
    return bytes(content)
