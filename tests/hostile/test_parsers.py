"""Hostile inputs to each parser: read, or refused in words, and little memory.

`make hostile` gives ten thousand to each, and to each entrance of a running ledger.
"""

from __future__ import annotations

import os
from random import Random
from typing import Final

import psutil
import pytest
from tests.hostile.inputs import hostile_bytes, hostile_text
from tests.hostile.parsers import PARSERS, Parser

INPUTS: Final = int(os.environ.get("NOCTURNE_HOSTILE_INPUTS", "2000"))
SLOW_INPUTS: Final = INPUTS // 10
"""Where one input costs a file or a whole verification."""
SLOW: Final = ("settings", "Settings", "runtime.journal", "audit.verify", "core.snapshot")
SEED: Final = int(os.environ.get("NOCTURNE_HOSTILE_SEED", "0")) or Random().randrange(1, 2**32)
"""Another one each time, and shown; NOCTURNE_HOSTILE_SEED replays one."""
GROWTH_BYTES_MAX: Final = 50 * 1024 * 1024


def drawn(parser: Parser, number: int) -> bytes:
    """The input of this number: half of them text, which bytes alone seldom are."""
    dice = Random(f"{SEED}/{parser.name}/{number}")
    samples = parser.samples()
    if number % 4:
        return hostile_bytes(dice, samples)
    texts = [one.decode("utf-8", "surrogateescape") for one in samples]
    return hostile_text(dice, texts).encode("utf-8", "surrogatepass")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("parser", PARSERS, ids=lambda one: one.name)
def test_whatever_comes_is_read_or_refused_in_words(parser: Parser) -> None:
    count = SLOW_INPUTS if any(name in parser.name for name in SLOW) else INPUTS
    for number in range(count // 10):
        parser.check(drawn(parser, number))
    before = psutil.Process().memory_info().rss
    for number in range(count // 10, count):
        data = drawn(parser, number)
        try:
            parser.check(data)
        except BaseException as fault:
            fault.add_note(f"{parser.name}, seed {SEED}, input {number}: {data[:200]!r}")
            raise
    grown = psutil.Process().memory_info().rss - before
    assert grown < GROWTH_BYTES_MAX, f"{parser.name}, seed {SEED}: grew by {grown} bytes"


@pytest.mark.parametrize(
    "parser", [one for one in PARSERS if one.bytes_max], ids=lambda one: one.name
)
def test_one_byte_too_many_is_refused_and_the_bound_said(parser: Parser) -> None:
    assert parser.bytes_max is not None
    filling = bytes(parser.bytes_max + 1)
    with pytest.raises(parser.faults, match=f"at most {parser.bytes_max} bytes"):
        parser.parse(filling)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda one: one.name)
def test_what_hostile_inputs_are_made_from_is_read(parser: Parser) -> None:
    """Else nothing would be tried beyond the first check."""
    assert any(parser.check(one) for one in parser.samples())
