"""A state written down and read back is the same state, and no damage goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, BOB, Draft, Ledger, author_id, make_genesis
from tests.mutation import mutated

from nocturne.core import snapshot
from nocturne.core.encoding import u32, u64
from nocturne.core.errors import Malformed
from nocturne.core.execution import execute
from nocturne.core.genesis import Limits
from nocturne.core.identifiers import LEDGER_SESSION
from nocturne.core.state import LedgerState

reproducible = settings(derandomize=True, deadline=None, max_examples=300, print_blob=True)

MEMBER = Draft(
    "nocturne.MemberAdded",
    f'{{"author":"sha256-{author_id(BOB).hex()}","role":"reader"}}'.encode(),
)


def make_ledger() -> Ledger:
    """Sessions of all kinds, members, full id windows, items, receipts, a closed session."""
    ledger = Ledger(make_genesis(limits=Limits(id_window=3), partitions=2))
    for number in range(1, 7):
        make = ledger.opening if number == 1 else ledger.command
        ledger.append(make("a", number=number))
    ledger.append(ledger.command("a", MEMBER, number=7))
    ledger.append(ledger.opening("b", Draft("M", b"x:+5"), Draft("M", b"y:+1"), kind="balances"))
    ledger.append(ledger.opening("c", Draft("nocturne.SessionClosed", b"{}"), kind="document"))
    ledger.append(ledger.command("a", author=BOB))
    ledger.append(ledger.command("never"))
    ledger.commit()
    return ledger


LEDGER = make_ledger()
CHUNKS = list(snapshot.encode(LEDGER.state))


def decode(chunks: list[bytes]) -> LedgerState:
    return snapshot.decode(LEDGER.genesis_bytes, chunks, LEDGER.registry)


def test_a_state_read_back_has_the_same_root_and_every_part() -> None:
    back = decode(CHUNKS)
    assert back.root_hash == LEDGER.state.root_hash
    assert back.positions == LEDGER.state.positions
    for name in ("a", "b", "c", LEDGER_SESSION):
        one, other = LEDGER.session(name), back.session(LEDGER.session(name).session)
        assert other is not None
        assert (one.leaf(), one.events, one.receipts) == (
            other.leaf(),
            other.events,
            other.receipts,
        )
        assert (one.kind, one.kind_version, one.closed) == (
            other.kind,
            other.kind_version,
            other.closed,
        )
        assert list(one.members.items()) == list(other.members.items())
        assert list(one.ids.items()) == list(other.ids.items())
        assert list(one.items.items()) == list(other.items.items())
    assert list(snapshot.encode(back)) == CHUNKS


def test_the_founding_state_is_a_snapshot_too() -> None:
    ledger = Ledger()
    chunks = list(snapshot.encode(ledger.state))
    back = snapshot.decode(ledger.genesis_bytes, chunks)
    assert back.root_hash == ledger.state.root_hash


def test_what_is_executed_on_a_state_read_back_is_the_same() -> None:
    ledger = make_ledger()
    ledger.append(ledger.command("a", number=8))
    ledger.append(ledger.command("a", number=4))
    ledger.append(ledger.command("b", Draft("M", b"x:-5"), number=2))
    ledger.append(ledger.command("b", Draft("M", b"x:-5"), number=3))
    here = execute(ledger.state, ledger.waiting())
    there = execute(decode(list(snapshot.encode(ledger.state))), ledger.waiting())
    assert here.records == there.records
    assert (here.state_root, here.dispositions_root) == (there.state_root, there.dispositions_root)


def is_refused(chunks: list[bytes]) -> bool:
    try:
        return decode(chunks).root_hash != LEDGER.state.root_hash
    except Malformed:
        return True


def test_a_flipped_bit_in_any_byte_is_malformed_or_changes_the_root() -> None:
    for number, chunk in enumerate(CHUNKS):
        for at in range(len(chunk)):
            damaged = bytearray(chunk)
            damaged[at] ^= 1 << at % 8
            chunks = [*CHUNKS[:number], bytes(damaged), *CHUNKS[number + 1 :]]
            assert is_refused(chunks), (number, at)


def test_every_cut_of_a_chunk_is_malformed() -> None:
    for number, chunk in enumerate(CHUNKS):
        for end in range(len(chunk)):
            with pytest.raises(Malformed):
                decode([*CHUNKS[:number], chunk[:end], *CHUNKS[number + 1 :]])


@given(st.integers(0, 2**32), st.integers(1, 4))
@reproducible
def test_any_damage_is_malformed_or_changes_the_root(seed: int, edits: int) -> None:
    dice = Random(seed)
    number = dice.randrange(len(CHUNKS))
    damaged = mutated(dice, CHUNKS[number], edits)
    if damaged != CHUNKS[number]:
        assert is_refused([*CHUNKS[:number], damaged, *CHUNKS[number + 1 :]])


Chunks = list[bytes]


@pytest.mark.parametrize(
    "damage",
    [
        lambda chunks: [],
        lambda chunks: chunks[1:],
        lambda chunks: chunks[:-1],
        lambda chunks: [*chunks, b""],
        lambda chunks: [*chunks, chunks[-1]],
        lambda chunks: [*chunks[:1], *chunks[:0:-1]],
        lambda chunks: [chunks[0], chunks[0], *chunks[1:]],
        lambda chunks: [chunks[0] + b"\x00", *chunks[1:]],
        lambda chunks: [*chunks[:-1], chunks[-1] + b"\x00"],
        lambda chunks: [b"".join(chunks)],
    ],
)
def test_chunks_missing_doubled_swapped_or_joined_are_refused(
    damage: Callable[[Chunks], Chunks],
) -> None:
    assert is_refused(damage(CHUNKS))


def test_another_ledgers_snapshot_is_malformed() -> None:
    other = Ledger(make_genesis(nonce=1))
    with pytest.raises(Malformed, match="another format or ledger"):
        snapshot.decode(other.genesis_bytes, CHUNKS)


def test_the_number_of_events_is_the_sequence() -> None:
    """Peaks of 2 and of 4 leaves make the same root; appending to them does not."""
    ledger = Ledger()
    ledger.answer(ledger.opening("s", Draft(), Draft()))
    chunks = list(snapshot.encode(ledger.state))
    frontier = u64(2) + ledger.session("s").events.peaks[0]
    (number,) = [at for at, chunk in enumerate(chunks) if frontier in chunk]
    forged = chunks[number].replace(frontier, u64(4) + frontier[8:])
    with pytest.raises(Malformed, match="expected 2 events, got 4"):
        snapshot.decode(ledger.genesis_bytes, [*chunks[:number], forged, *chunks[number + 1 :]])


def test_a_count_that_promises_the_moon_is_malformed_at_once() -> None:
    (number,) = [at for at, chunk in enumerate(CHUNKS) if chunk[4:5] == b"b"]
    members = u32(1) + author_id(ALICE)
    assert CHUNKS[number].count(members) == 2
    forged = CHUNKS[number].replace(members, u32(2**32 - 1) + author_id(ALICE), 1)
    with pytest.raises(Malformed):
        decode([*CHUNKS[:number], forged, *CHUNKS[number + 1 :]])
