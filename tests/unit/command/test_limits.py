"""Rates by principal, refusals tenfold, sessions by author."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.command.test_outcomes import World
from tests.unit.core import shapes
from tests.vectors.synthetic import signer_of

from nocturne.command import limits, store
from nocturne.command.limits import (
    Counted,
    RateLimits,
    Sent,
    SessionCounts,
    decode_counts,
    encode_counts,
    opener_of,
    principal_of,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import EventHeader, encode_event_header
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import key_id
from nocturne.core.receipts import Reason, decode_receipt_header

HOST = "ipv4:127.0.0.1"
LEDGER_ID = LedgerId(bytes(32))


@pytest.mark.parametrize(
    "peer, principal",
    [
        # An authenticated principal, which has no port to be told apart by.
        ("shop", "shop"),
        ("7400", "7400"),
        ("ipv4:127.0.0.1:40312", HOST),
        ("ipv6:%5B::1%5D:40312", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
        ("unix:/run/nocturne.sock", "unix:/run/nocturne.sock"),
        ("", ""),
    ],
)
def test_a_principal_is_a_host_whatever_its_port(peer: str, principal: str) -> None:
    assert principal_of(peer) == principal


def test_a_principal_spends_its_burst_and_then_its_rate() -> None:
    rates = RateLimits(per_second=10, burst=5)
    assert [rates.take("a", 1, 0.0) for _ in range(5)] == [0.0] * 5
    assert rates.take("a", 1, 0.0) == pytest.approx(0.1)
    assert rates.take("b", 1, 0.0) == 0.0
    assert rates.take("a", 1, 0.1) == 0.0
    assert rates.take("a", 1, 0.1) == pytest.approx(0.1)


def test_a_batch_over_the_burst_is_paid_for_afterwards() -> None:
    rates = RateLimits(per_second=10, burst=5)
    assert rates.take("a", 20, 0.0) == 0.0
    assert rates.take("a", 1, 1.0) == pytest.approx(0.6)


def test_a_debt_is_paid_off_at_the_rate() -> None:
    rates = RateLimits(per_second=10, burst=5)
    assert rates.take("a", 1, 0.0) == 0.0
    rates.charge("a", 9, 0.0)
    assert rates.take("a", 1, 0.0) == pytest.approx(0.6)
    assert rates.take("a", 1, 0.6) == 0.0


def test_without_a_rate_nobody_is_limited() -> None:
    rates = RateLimits(per_second=0, burst=0)
    rates.charge("a", 10**9, 0.0)
    assert rates.take("a", 1_000_000, 0.0) == 0.0


def test_remembered_principals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PRINCIPALS_MAX", 3)
    rates = RateLimits(per_second=1, burst=1)
    for number in range(10):
        rates.take(str(number), 1, 0.0)
        rates.charge(f"other {number}", 1, 0.0)
    assert len(rates._buckets) == 3


# Refusals --------------------------------------------------------------------------------------


def test_refusals_are_counted_to_whoever_sent_them_but_repetitions() -> None:
    world = World()
    world.open()
    good = world.ledger.command("a/1", b"{}")
    world.ledger.submit(good)  # 1
    world.ledger.submit(good)  # 2: repeated
    world.ledger.submit(world.ledger.command("a/1", b"{}", expected=1))  # 3
    world.ledger.submit(world.ledger.command("a/1", b"{}", author="mallory"))  # 4
    world.ledger.submit(world.ledger.command("a/1", b"{}", signer=signer_of("author x")))  # 5
    world.ledger.append(0, None)  # 6
    checked = world.block()
    reasons = [
        None if one.receipt is None else decode_receipt_header(one.receipt).reason
        for one in checked.block.records
    ]
    assert reasons[1:] == [
        Reason.REPEATED,
        Reason.DUPLICATE_SEQ,
        Reason.NOT_A_MEMBER,
        Reason.SIGNATURE_INVALID,
        None,
    ]
    sent = Sent()
    for offset, principal in ((1, "a"), (2, "a"), (3, "a"), (4, "b"), (6, "b"), (7, "later")):
        sent.note(0, offset, principal)
    assert sent.refused(checked) == {"a": 1, "b": 1}
    assert len(sent) == 1
    assert sent.refused(checked) == {}


def test_commands_whose_disposition_is_awaited_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SENT_MAX", 3)
    sent = Sent()
    for offset in range(10):
        sent.note(0, offset, "a")
    assert len(sent) == 3


# Sessions --------------------------------------------------------------------------------------


def headers(**fixed: Any) -> st.SearchStrategy[EventHeader]:
    """Event headers with some fields given."""
    return shapes.event_headers.map(
        lambda one: EventHeader(**{name: getattr(one, name) for name in one.__slots__} | fixed)
    )


@given(headers(sequence=1) | shapes.event_headers)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_the_opener_is_the_author_of_a_first_event(header: EventHeader) -> None:
    expected = header.author if header.sequence == 1 else None
    assert opener_of(encode_event_header(header)) == expected


def test_openings_are_counted_by_author_and_each_block_once() -> None:
    world = World()
    counts = SessionCounts(per_author_max=2)
    author = key_id(signer_of("author alice").key)
    opened = world.ledger.command("a/1", b"{}", kind="facts")
    author = opened.command.author
    world.ledger.submit(opened)
    world.ledger.submit(world.ledger.command("a/1", b"{}"))
    world.ledger.submit(world.ledger.command("a/1", b"{}", kind="facts"))  # open already
    first = world.block()
    counts.take(first)
    counts.take(first)
    assert counts.counted(5).opened == {author: 1}
    assert not counts.is_full(author)
    world.ledger.submit(world.ledger.command("a/2", b"{}", kind="facts"))
    counts.take(world.block())
    assert counts.is_full(author)
    assert not counts.is_full(bytes(32))
    again = SessionCounts(2, counts.counted(9))
    assert again.is_full(author)
    assert again.height == 2


def test_without_a_limit_nobody_is_full() -> None:
    assert not SessionCounts(0, Counted(1, 0, {bytes(32): 10**6})).is_full(bytes(32))


def test_blocks_from_before_the_first_one_are_counted_late_and_those_kept_are_not_again() -> None:
    world = World()
    author = world.ledger.command("a/1", b"{}", kind="facts").command.author
    blocks = []
    for number in range(1, 6):
        world.ledger.submit(world.ledger.command(f"a/{number}", b"{}", kind="facts"))
        blocks.append(world.block())
    for kept, expected in ((0, 5), (2, 3)):
        counts = SessionCounts(9, Counted(kept, 0, {}))
        for height in (4, 5, 3, 2, 1, 3, 5):
            counts.take(blocks[height - 1])
        assert (counts.height, counts.counted(0).opened) == (5, {author: expected})


def test_counted_authors_are_bounded_and_those_with_most_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "AUTHORS_MAX", 8)
    counts = SessionCounts(5)
    counts._add([b"much"] * 5)
    for number in range(100):
        counts._add([b"%d" % number])
        assert len(counts.counted(0).opened) <= 8
    assert counts.is_full(b"much")


# What is kept ----------------------------------------------------------------------------------

opened = st.dictionaries(shapes.hashes.map(bytes), st.integers(0, 2**32 - 1), max_size=5)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), opened)
def test_counts_are_read_back(height: int, offset: int, known: Mapping[bytes, int]) -> None:
    counted = Counted(height, offset, known, b"sets" * (height % 9), b"changes" * (offset % 9))
    assert decode_counts(encode_counts(LEDGER_ID, counted), LEDGER_ID) == counted


@given(opened, st.data())
def test_changed_cut_or_foreign_counts_are_malformed(
    known: Mapping[bytes, int], data: st.DataObject
) -> None:
    good = encode_counts(LEDGER_ID, Counted(3, 4, known, b"sets", b"changes"))
    at = data.draw(st.integers(0, len(good) - 1))
    for bad in (good[:at], good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :], good + b"\0"):
        with pytest.raises(Malformed):
            decode_counts(bad, LEDGER_ID)
    with pytest.raises(Malformed):
        decode_counts(good, LedgerId(b"\x01" * 32))


def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "command"
    assert store.load(home, LEDGER_ID) is None
    counted = Counted(7, 8, {bytes(32): 9})
    store.save(home, LEDGER_ID, counted)
    assert store.load(home, LEDGER_ID) == counted


@pytest.mark.parametrize("data", [b"", b"torn", bytes(limits.COUNTS_BYTES_MAX + 1)])
def test_a_file_that_is_not_usable_counts_for_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / store.FILE).write_bytes(data)
    assert store.load(tmp_path, LEDGER_ID) is None
