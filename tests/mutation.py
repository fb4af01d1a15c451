"""Damage for tests: bytes changed the way a careless or hostile writer would."""

from __future__ import annotations

from random import Random

from nocturne.core.encoding import long_to_avro


def mutated(dice: Random, data: bytes, edits: int) -> bytes:
    """`data` after some edits: bits flipped, bytes cut out, doubled, put in, numbers replaced."""
    changed = bytearray(data)
    for _ in range(edits):
        at = dice.randrange(len(changed) + 1)
        length = dice.randrange(9)
        match dice.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at:at] = dice.randbytes(length)
            case _:
                # Numbers that readers of Avro stumble over.
                number = dice.choice((0, -1, 2**31, 2**63 - 1, -(2**63), 2**40, 1))
                changed[at : at + 1] = long_to_avro(number)
    return bytes(changed)
