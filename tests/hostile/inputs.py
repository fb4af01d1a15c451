"""What strangers send: one library of hostile bytes, texts and JSON, for every entrance.

Everything is drawn from a `Random` that the caller seeds (or that Hypothesis plays), so that a seed
replays it. Nothing here is longer than `BYTES_MAX`, but what `oversize` makes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

from tests.mutation import mutated

BYTES_MAX: Final = 8 * 1024
"""Of one input, so that 10 000 of them take seconds; what is over a bound is tried apart."""
DEPTH_MAX: Final = 2_000
"""Levels of nesting: more than a recursive reader in C has stack for by Python's count."""
EDITS_MAX: Final = 4

Texts = Sequence[str]
Samples = Sequence[bytes]


def _billion_laughs(levels: int = 9) -> bytes:
    entities = "".join(
        f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, levels)
    )
    top = f"<log>&l{levels - 1};</log>"
    return f'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY l0 "ha">{entities}]>{top}'.encode()


def _external_entity(address: str) -> bytes:
    return (
        f'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY x SYSTEM "{address}">]>'
        f'<log xes.version="1.0"><trace><string key="concept:name" value="&x;"/></trace></log>'
    ).encode()


BOMBS: Final[tuple[bytes, ...]] = (
    gzip.compress(bytes(4 * 1024 * 1024), mtime=0),
    gzip.compress(gzip.compress(bytes(4 * 1024 * 1024), mtime=0), mtime=0),
    gzip.compress(_billion_laughs(), mtime=0),
    gzip.compress(b"{}", mtime=0)[:-4],
    _billion_laughs(),
    _external_entity("file:///etc/passwd"),
    _external_entity("http://127.0.0.1:1/x.dtd"),
    b'<?xml version="1.0" encoding="UTF-7"?><log/>',
    b"<a>" * DEPTH_MAX,
    b"<a>" * 1000 + b"</a>" * 1000,
    b"[" * DEPTH_MAX,
    b'{"a":' * 1600,
    b"[" * DEPTH_MAX + b"]" * DEPTH_MAX,
    b'{"a":' * 1000 + b"1" + b"}" * 1000,
)
"""Small, and large or deep for a reader who believes them."""

ODDITIES: Final[tuple[bytes, ...]] = (
    b"",
    b"\0",
    b"\xff" * 64,
    b"\x80" * 64,
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" * 3,  # the longest numbers of Avro
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b"NaN",
    b"[NaN,Infinity,-Infinity]",
    b"1e999",
    b"-1e-999",
    b"-0",
    b"9" * 400,
    b"1" + b"0" * 5000,
    b"0." + b"1" * 5000,
    b'{"a":1,"a":2}',
    b'{"a":1,"\\u0061":2}',
    b'{"":null}',
    b'{"__proto__":{}}',
    b"[1,]",
    b"// comment\n{}",
    b"'a'",
    b"\r\n\r\n",
    b"=cmd|'/c calc'!A1,\"\n",
    b"../../../../etc/passwd",
    b"%s%n%x{0}{{}}$(id)`id`",
    b"\x1b[2J\x1b]0;title\x07",
    "\u202e\u2028\u2029\u0000\ufeff\U0010ffff".encode(),
)
"""What readers stumble over."""

NUMBERS: Final[Texts] = (
    *("0", "-0", "-1", "1", "+1", "1_0", " 1", "1 ", "0x10", "01", "1.0", "1e3", ".5", "1."),
    *("nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e999", "1e-999", "", "٣", "²", "½"),
    *(str(2**31), str(2**53), str(2**63), str(-(2**63) - 1), "9" * 30, "9" * 5000),
)
"""As somebody types a number, a port, a time."""

SURROGATES: Final[Texts] = ("\ud800", "\udc80", "a\udcffb")


def hostile_bytes(dice: Random, valid: Samples = ()) -> bytes:
    """Any of: noise, damage to one of `valid`, one cut, continued, doubled or spliced with another,
    JSON gone wrong, a bomb, an oddity.
    """
    made = _draw(dice, _FROM_VALID if valid and dice.randrange(4) else _FROM_NOTHING)(dice, valid)
    return made[:BYTES_MAX]


def hostile_text(dice: Random, valid: Texts = ()) -> str:
    """As `hostile_bytes`, of characters: lone surrogates, numbers in odd spellings, controls."""
    match dice.randrange(5):
        case 0:
            return dice.choice(NUMBERS)
        case 1:
            return _spliced_text(dice, [*valid, *NUMBERS], dice.choice(SURROGATES))
        case 2 if valid:
            return _spliced_text(dice, valid, chr(dice.randrange(0x20)))
        case _:
            data = hostile_bytes(dice, [one.encode("utf-8", "surrogatepass") for one in valid])
            return data.decode("utf-8", "surrogateescape")


def hostile_json(dice: Random, depth: int = 3) -> bytes:
    """JSON that is often none: names twice, NaN, lone surrogates, numbers of any size, trailing
    commas, and now and then nothing wrong at all.
    """
    match dice.randrange(9 if depth else 6):
        case 0:
            return dice.choice(NUMBERS).encode()
        case 1:
            return dice.choice((b"null", b"true", b"NaN", b"-Infinity", b"nul", b"[", b"}"))
        case 2:
            return b'"\\u%04x"' % dice.randrange(0x10000)
        case 3:
            return json.dumps(chr(dice.randrange(1, 0x3000))).encode()
        case 4:
            return b'"' + dice.randbytes(dice.randrange(6)) + b'"'
        case 5:
            return b"%d" % dice.randrange(-(2**70), 2**70)
        case 6:
            return b"[" + b",".join(_some(dice, depth)) + dice.choice((b"]", b"]", b",]", b""))
        case _:
            names = (b'"a"', b'"a"', b'"b"', b'"\\u0061"', b'""', b"a")
            members = [dice.choice(names) + b":" + one for one in _some(dice, depth)]
            return b"{" + b",".join(members) + dice.choice((b"}", b"}", b"}", b""))


def oversize(bytes_max: int, valid: bytes = b"") -> bytes:
    """One byte more than a parser takes."""
    return valid + bytes(bytes_max + 1 - len(valid))


def storm(seed: int, count: int, valid: Samples = ()) -> Iterator[bytes]:
    """`count` hostile inputs; each one by itself is replayed by seed and number."""
    for number in range(count):
        yield hostile_bytes(Random(f"{seed}/{number}"), valid)


_Make = Callable[[Random, Samples], bytes]


def _draw(dice: Random, makers: Sequence[_Make]) -> _Make:
    return dice.choice(makers)


def _noise(dice: Random, _: Samples) -> bytes:
    return dice.randbytes(dice.randrange(dice.choice((8, 64, 512))))


def _damaged(dice: Random, valid: Samples) -> bytes:
    return mutated(dice, dice.choice(valid), dice.randrange(1, EDITS_MAX + 1))


def _cut(dice: Random, valid: Samples) -> bytes:
    one = dice.choice(valid)
    return one[: dice.randrange(len(one) + 1)]


def _continued(dice: Random, valid: Samples) -> bytes:
    return dice.choice(valid) + dice.choice((b"\0", b"\n", dice.randbytes(3), dice.choice(valid)))


def _spliced(dice: Random, valid: Samples) -> bytes:
    one, other = dice.choice(valid), dice.choice(valid)
    return one[: dice.randrange(len(one) + 1)] + other[dice.randrange(len(other) + 1) :]


def _filled(dice: Random, valid: Samples) -> bytes:
    """A sample with a part of it, or all after it, replaced by one repeated byte or an oddity."""
    one = dice.choice(valid)
    at = dice.randrange(len(one) + 1)
    length = dice.randrange(len(one) - at + 1)
    filling = dice.choice(
        (bytes((dice.randrange(256),)) * length, dice.choice(ODDITIES), hostile_json(dice, 1))
    )
    return one[:at] + filling + one[at + length :]


def _untouched(dice: Random, valid: Samples) -> bytes:
    return dice.choice(valid)


def _bomb(dice: Random, _: Samples) -> bytes:
    return dice.choice(BOMBS)


def _oddity(dice: Random, _: Samples) -> bytes:
    return dice.choice(ODDITIES) * dice.choice((1, 1, 1, 3))


def _broken_json(dice: Random, _: Samples) -> bytes:
    return hostile_json(dice)


_FROM_NOTHING: Final[Sequence[_Make]] = (_noise, _noise, _oddity, _broken_json, _broken_json, _bomb)
_FROM_VALID: Final[Sequence[_Make]] = (
    *(_damaged, _damaged, _damaged, _cut, _continued, _spliced, _filled, _filled, _untouched),
)


def _some(dice: Random, depth: int) -> list[bytes]:
    return [hostile_json(dice, depth - 1) for _ in range(dice.randrange(4))]


def _spliced_text(dice: Random, texts: Texts, put_in: str) -> str:
    text = dice.choice(texts)
    at = dice.randrange(len(text) + 1)
    return text[:at] + put_in + text[at:]
