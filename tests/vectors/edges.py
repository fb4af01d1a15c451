"""Ed25519 signatures at the edge of the rule (docs/spec/encoding.md §5): one for each clause.

Made with the curve's own arithmetic, because no honest signer makes them. Slow and not constant in
time: for vectors only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha512
from typing import Final

from tests.vectors.synthetic import seed_of

from nocturne.core.encoding import domain
from nocturne.core.keys import signed_bytes

TAG: Final = "nocturne/command-signature/v1"

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ORDER = 2**252 + 27742317777372353535851937790883648493
_NEUTRAL = (0, 1)
_ORDER_2 = (0, _P - 1)
_BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edge:
    """A signature of `message` under `TAG` by a key of this one suite, and whether it holds."""

    name: str
    public_key: bytes
    message: bytes
    signature: bytes
    verifies: bool


def edges() -> Iterator[Edge]:
    """All of them."""
    secret, message = _secret("edge"), b"message"
    public = _bytes(_times(secret, _BASE))
    honest = _signature(secret, public, message)
    response = int.from_bytes(honest[32:], "little")
    yield Edge("an honest one", public, message, honest, True)
    for times in (1, 2, 8):
        raised = honest[:32] + (response + times * _ORDER).to_bytes(32, "little")
        yield Edge(f"S raised by {times} group orders", public, message, raised, False)
    for name, point in (("order 2", _ORDER_2), ("order 8", _order_8())):
        mixed = _signature(secret, public, message, torsion=point)
        what = f"R with a part of {name}: only multiplied by the cofactor would it hold"
        yield Edge(what, public, message, mixed, False)
    none = _signature(secret, public, message, nonce=0)
    yield Edge("R of order 1, by an honest key", public, message, none, False)
    for name, key in _weak_keys():
        # With S 0 and R neutral the equation holds whenever k·A is neutral: try some messages.
        signature = _bytes(_NEUTRAL) + bytes(32)
        for number in range(8):
            text = b"message %d" % number
            yield Edge(f"a key of {name}, message {number}", key, text, signature, False)
    yield from _mixed_key(secret)


def _weak_keys() -> Iterator[tuple[str, bytes]]:
    yield "order 1", _bytes(_NEUTRAL)
    yield "order 2", _bytes(_ORDER_2)
    yield "order 4", bytes(32)
    yield "order 8", _bytes(_order_8())
    yield "order 1, not canonical", (_P + 1).to_bytes(32, "little")
    yield "order 1 with the sign of x set", (1 | 1 << 255).to_bytes(32, "little")
    yield "order 4, not canonical", _P.to_bytes(32, "little")


def _mixed_key(secret: int) -> Iterator[Edge]:
    """A key with a part of order 8 is not of small order: the equation alone decides."""
    public = _bytes(_plus(_times(secret, _BASE), _order_8()))
    found = {True: 0, False: 0}
    for number in range(64):
        message = b"message %d" % number
        signature = _signature(secret, public, message)
        challenge = _challenge(signature[:32], public, message)
        holds = challenge % 8 == 0
        if found[holds] < 2:
            found[holds] += 1
            name = (
                "a key with a part of order 8, k a multiple of 8"
                if holds
                else ("a key with a part of order 8, k no multiple of 8")
            )
            yield Edge(f"{name}, message {number}", public, message, signature, holds)


def _secret(label: str) -> int:
    scalar = int.from_bytes(sha512(seed_of(label)).digest()[:32], "little")
    return scalar & ((1 << 254) - 8) | 1 << 254


def _signature(
    secret: int,
    public: bytes,
    message: bytes,
    *,
    nonce: int = 2**200 + 12345,
    torsion: Point = _NEUTRAL,
) -> bytes:
    commitment = _bytes(_plus(_times(nonce, _BASE), torsion))
    response = (nonce + _challenge(commitment, public, message) * secret) % _ORDER
    return commitment + response.to_bytes(32, "little")


def _challenge(commitment: bytes, public: bytes, message: bytes) -> int:
    signed = signed_bytes(domain(TAG), b"\x01", message)
    return int.from_bytes(sha512(commitment + public + signed).digest(), "little") % _ORDER


def _order_8() -> Point:
    """A point that four times itself is the one of order 2."""
    y = int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    )
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    return x, y


def _plus(one: Point, other: Point) -> Point:
    """RFC 8032 §5.1.4, without projective coordinates."""
    (x1, y1), (x2, y2) = one, other
    product = _D * x1 * x2 * y1 * y2 % _P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, _P) % _P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, _P) % _P
    return x, y


def _times(scalar: int, point: Point) -> Point:
    found = _NEUTRAL
    while scalar:
        if scalar & 1:
            found = _plus(found, point)
        point = _plus(point, point)
        scalar >>= 1
    return found


def _bytes(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")
