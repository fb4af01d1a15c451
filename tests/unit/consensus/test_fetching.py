"""Which snapshot is taken, and how its parts come together whoever fails on the way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.consensus.ledgers import Ledger, signer

from nocturne.consensus import fetching
from nocturne.consensus.fetching import (
    FETCH_SECONDS,
    PART_SECONDS_MAX,
    Download,
    candidate,
    chosen,
    size_max,
    sources,
    worth,
)
from nocturne.consensus.offers import (
    CONTENT_BYTES_MAX,
    PART_BYTES,
    Cutter,
    Manifest,
    Part,
    Snapshot,
    check_manifest,
)
from nocturne.core.certificates import ValidatorSet
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key

reproducible = settings(derandomize=True, deadline=None, max_examples=100, print_blob=True)
KEYS = tuple(signer(200 + number).key for number in range(4))
ALONE = ValidatorSet.of(KEYS[:1])
FOUR = ValidatorSet.of(KEYS)


def manifest_of(data: bytes) -> Manifest:
    cutter = Cutter()
    cutter.update(data)
    return cutter.manifest()


def offered(height: int, size: int = 1, fill: int = 0) -> Snapshot:
    ledger = Ledger()
    ledger.write("a")
    block = ledger.extend().committed
    header = replace(block.proposal.header, height=height)
    proposal = replace(block.proposal, header=header)
    parts = tuple([Hash(bytes([fill]) * 32)] * -(-size // PART_BYTES))
    return Snapshot(replace(block, proposal=proposal), (), 0, 0, Manifest(size, parts))


def test_a_snapshot_that_saves_few_blocks_or_less_than_it_costs_is_not_taken() -> None:
    few, many = fetching.JOIN_BLOCKS_MIN - 1, fetching.JOIN_BLOCKS_MIN
    assert worth(offered(few), 0, False) == 0
    assert worth(offered(many), 0, False) > 0
    assert worth(offered(many, many * fetching.BLOCK_WORTH_BYTES), 0, False) == 0
    assert chosen({KEYS[0]: offered(few)}, 0, False, ALONE, ()) is None
    # Whoever cannot go on takes any that leads on, and none that does not.
    assert chosen({KEYS[0]: offered(few)}, few - 1, True, ALONE, ()) is not None
    assert chosen({KEYS[0]: offered(few)}, few, True, ALONE, ()) is None
    assert chosen({}, 0, True, ALONE, ()) is None


@given(st.permutations([(400, 1, 0), (400, 1, 1), (500, 1, 2), (500, 1, 3)]))
@reproducible
def test_the_choice_does_not_depend_on_the_order_of_the_offers(
    order: list[tuple[int, int, int]],
) -> None:
    offers = {key: offered(*one) for key, one in zip(KEYS, order, strict=True)}
    best = chosen(offers, 0, False, FOUR, ())
    assert best is not None
    names = [offered(500, 1, fill).manifest.digest() for fill in (2, 3)]
    assert best.height == 500
    assert best.manifest.digest() in names
    assert [offers[key] for key in sources(offers, best)] == [best]
    again = chosen(dict(reversed(offers.items())), 0, False, FOUR, ())
    assert again == best


def test_whoever_names_the_content_of_others_for_another_block_is_alone_with_it() -> None:
    true, false = offered(400), offered(500)
    offers = {KEYS[0]: true, KEYS[1]: false, KEYS[2]: true}
    assert true.manifest == false.manifest
    assert sources(offers, false) == [KEYS[1]]
    assert sources(offers, true) == [KEYS[0], KEYS[2]]
    assert chosen(offers, 0, True, FOUR, {candidate(false)}) == true


def of_sizes(*sizes: int) -> dict[Key, Snapshot]:
    """Of each validator an offer of that many bytes; the first has the highest block."""
    found = zip(KEYS, sizes, strict=False)
    return {key: offered(500 - at, size, at) for at, (key, size) in enumerate(found)}


def test_no_snapshot_is_taken_that_has_more_than_twice_the_bytes_of_what_a_correct_one_offers() -> (
    None
):
    honest = 1000
    offers = of_sizes(2 * honest, honest, honest)
    assert chosen(offers, 0, True, FOUR, ()) == offers[KEYS[0]]
    offers = of_sizes(2 * honest + 1, honest, honest)
    assert chosen(offers, 0, True, FOUR, ()) == offers[KEYS[1]]


def test_as_many_as_may_lie_make_the_bound_no_larger_whatever_they_offer() -> None:
    keys = tuple(signer(200 + number).key for number in range(7))
    lies = {key: offered(900, CONTENT_BYTES_MAX) for key in keys[:2]}
    true = {key: offered(500, size) for key, size in zip(keys[2:], (70, 90, 80), strict=False)}
    assert size_max({**lies, **true}, ValidatorSet.of(keys)) == 2 * 90


def test_where_no_more_validators_than_may_lie_offer_one_its_size_is_bound_by_none() -> None:
    offers = of_sizes(CONTENT_BYTES_MAX)
    assert chosen(offers, 0, True, FOUR, ()) == offers[KEYS[0]]
    # Whoever is no validator does not say how large a state is.
    stranger = {signer(300).key: offered(400)}
    assert size_max({**offers, **stranger}, FOUR) == CONTENT_BYTES_MAX


def test_a_small_offer_that_leads_nowhere_keeps_no_other_from_being_taken() -> None:
    offers = of_sizes(1000)
    small = {KEYS[1]: offered(10)}
    assert chosen({**offers, **small}, 10, True, FOUR, ()) == offers[KEYS[0]]


def test_a_content_that_did_not_come_whole_is_begun_again_after_every_other_one() -> None:
    offers = of_sizes(1000, 900, 800)
    lost = set()
    for key in KEYS[:3]:
        taken = chosen(offers, 0, True, FOUR, lost)
        assert taken == offers[key]
        lost.add(candidate(taken))
    assert chosen(offers, 0, True, FOUR, lost) == offers[KEYS[0]]


@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(1, 2**25)), min_size=1, max_size=4),
    st.booleans(),
)
@reproducible
def test_what_is_too_large_leaves_something_to_be_taken(
    made: list[tuple[int, int]], urgent: bool
) -> None:
    offers = {key: offered(*one) for key, one in zip(KEYS, made, strict=False)}
    taken = chosen(offers, 0, urgent, FOUR, ())
    assert (taken is None) == all(worth(one, 0, urgent) <= 0 for one in offers.values())
    if taken is not None:
        worthy = [one for one in offers.values() if worth(one, 0, urgent) > 0]
        larger = [one for one in worthy if 2 * one.manifest.size >= taken.manifest.size]
        assert len(larger) > min(FOUR.faulty_max, len(worthy) - 1)


@given(st.lists(st.integers(1, 2 * PART_BYTES), min_size=1, max_size=5))
@reproducible
def test_a_manifest_is_the_same_however_its_content_is_cut_into_pieces(sizes: list[int]) -> None:
    data = bytes(sum(sizes))
    cutter = Cutter()
    for size in sizes:
        cutter.update(bytes(size))
    found = cutter.manifest()
    assert found == manifest_of(data)
    assert found.size == len(data)
    for index, one in enumerate(found.parts):
        part = data[index * PART_BYTES :][: found.length_of(index)]
        assert one == sha256(part).digest()
    check_manifest(found)


@pytest.mark.parametrize(
    "wrong",
    [
        Manifest(0, ()),
        Manifest(1, ()),
        Manifest(PART_BYTES, (Hash(bytes(32)),) * 2),
        Manifest(PART_BYTES + 1, (Hash(bytes(32)),)),
        Manifest(2**40, (Hash(bytes(32)),)),
    ],
)
def test_a_manifest_with_another_number_of_parts_is_malformed(wrong: Manifest) -> None:
    with pytest.raises(Malformed):
        check_manifest(wrong)


DATA = Random(1).randbytes(5 * PART_BYTES + 7)
MANIFEST = manifest_of(DATA)


def part(index: int) -> Part:
    data = DATA[index * PART_BYTES :][:PART_BYTES]
    return Part(MANIFEST.digest(), index, data)


def test_parts_that_are_here_are_not_asked_for() -> None:
    download = Download(MANIFEST, {0, 2, 4}, KEYS[:1])
    assert download.asks(0.0) == [(KEYS[0], 1), (KEYS[0], 3)]
    assert download.asks(0.0) == []
    assert download.take(KEYS[0], part(1))
    assert download.asks(0.0) == [(KEYS[0], 5)]
    assert download.take(KEYS[0], part(3))
    assert download.take(KEYS[0], part(5))
    assert download.is_done


def test_what_was_not_asked_of_its_sender_is_not_taken() -> None:
    download = Download(MANIFEST, set(), KEYS[:1])
    assert not download.take(KEYS[0], part(0))
    download.asks(0.0)
    assert not download.take(KEYS[1], part(0))
    assert not download.take(KEYS[0], part(5))
    assert not download.take(KEYS[0], replace(part(0), digest=Hash(bytes(32))))
    assert download.take(KEYS[0], part(0))
    assert not download.take(KEYS[0], part(0))


def test_whoever_sends_other_bytes_is_asked_no_more_and_another_one_is() -> None:
    download = Download(MANIFEST, set(), KEYS[:2])
    asked = dict(download.asks(0.0))
    assert set(asked) == set(KEYS[:2])
    with pytest.raises(PeerFault, match="part 0 has another hash"):
        download.take(KEYS[0], replace(part(0), data=part(1).data))
    download.take(KEYS[1], part(2))
    assert {key for key, _ in download.asks(0.0)} == {KEYS[1]}
    assert not download.is_lost
    download.drop(KEYS[1])
    assert download.is_lost
    assert not download.is_done


def test_a_part_that_does_not_come_is_asked_for_again_and_at_last_of_nobody() -> None:
    download = Download(MANIFEST, set(), KEYS[:1])
    now = 0.0
    for _ in range(fetching.FAILURES_MAX):
        assert len(download.asks(now)) == fetching.ASKED_MAX
        now += fetching.PART_SECONDS_MAX
    assert download.asks(now) == []
    assert download.is_lost
    assert download.slow == [KEYS[0]]


def test_two_who_keep_silent_cost_a_part_its_time_once_each() -> None:
    download = Download(manifest_of(b"x"), set(), KEYS[:3])
    silent, also_silent, giver = KEYS[:3]
    assert download.asks(0.0) == [(silent, 0)]
    assert download.asks(PART_SECONDS_MAX) == [(also_silent, 0)]
    assert download.asks(2 * PART_SECONDS_MAX) == [(giver, 0)]
    assert download.take(giver, Part(download.digest, 0, b"x"))
    assert download.is_done


MUCH = Random(2).randbytes(64 * PART_BYTES)
MUCH_MANIFEST = manifest_of(MUCH)
LOOK_MIN, LOOK_MAX = 0.05, 1.0
few = settings(reproducible, max_examples=30)


def fetched(seconds: Mapping[Key, float]) -> tuple[Download, float]:
    """What became of a content whose givers take so many seconds for a part each, one after the
    other, and when.
    """
    download = Download(MUCH_MANIFEST, set(), list(seconds))
    free = dict.fromkeys(seconds, 0.0)
    coming: list[tuple[float, int, Key]] = []
    now = 0.0
    while True:
        for _, index, key in [one for one in coming if one[0] <= now]:
            data = MUCH[index * PART_BYTES :][:PART_BYTES]
            download.take(key, Part(download.digest, index, data))
        coming = [one for one in coming if one[0] > now]
        for key, index in download.asks(now):
            free[key] = max(free[key], now) + seconds[key]
            coming.append((free[key], index, key))
        if download.is_done or download.is_lost:
            return download, now
        soon = min([one[0] for one in coming], default=now + LOOK_MAX)
        now = max(now + LOOK_MIN, min(now + LOOK_MAX, soon))


def test_one_who_trickles_is_found_too_slow_long_before_all_of_it_would_have_come() -> None:
    per_part = PART_SECONDS_MAX / 2.1
    download, seconds = fetched({KEYS[0]: per_part})
    assert download.is_lost
    assert download.slow == [KEYS[0]]
    assert FETCH_SECONDS < seconds < FETCH_SECONDS + 10 < per_part * len(MUCH_MANIFEST.parts)


def test_the_slow_one_alone_is_refused_and_the_other_gives_what_it_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 5.0)
    share = 2 * PART_BYTES / fetching.FETCH_BYTES_PER_SECOND_MIN
    download, seconds = fetched({KEYS[0]: PART_SECONDS_MAX / 2.1, KEYS[1]: share - LOOK_MIN})
    assert download.is_done
    assert download.slow == [KEYS[0]]
    assert seconds > 5 * fetching.FETCH_SECONDS


def test_whoever_owes_nothing_loses_no_time() -> None:
    """The only parts are awaited of others, one after the other, for longer than anybody has."""
    *silent, giver = (signer(400 + number).key for number in range(8))
    data = b"x" * 2 * PART_BYTES
    download = Download(manifest_of(data), set(), [*silent, giver])
    for number, key in enumerate(silent):
        assert {asked for asked, _ in download.asks(number * PART_SECONDS_MAX)} == {key}
    now = len(silent) * PART_SECONDS_MAX
    assert now > FETCH_SECONDS
    assert {asked for asked, _ in download.asks(now)} == {giver}
    assert download.slow == []
    for index in range(2):
        download.take(giver, Part(download.digest, index, data[:PART_BYTES]))
    assert download.is_done


@given(
    st.lists(st.sampled_from((0.01, 0.2, 0.5, 1.0, 2.0, 4.9, 9.9, 100.0)), min_size=1, max_size=4)
)
@few
def test_however_slow_they_are_all_of_it_has_come_or_nobody_is_left_in_bounded_time(
    per_part: list[float],
) -> None:
    download, seconds = fetched(dict(zip(KEYS, per_part, strict=False)))
    size_seconds = len(MUCH) / fetching.FETCH_BYTES_PER_SECOND_MIN
    assert seconds <= len(per_part) * (FETCH_SECONDS + size_seconds + LOOK_MAX)
    share = len(per_part) * PART_BYTES / fetching.FETCH_BYTES_PER_SECOND_MIN
    quick = {key for key, one in zip(KEYS, per_part, strict=False) if one < share - LOOK_MIN}
    assert not quick.intersection(download.slow)
    assert download.is_done or not quick


@given(st.integers(0, 2**32))
@reproducible
def test_whatever_is_lost_late_or_wrong_all_parts_come_together(seed: int) -> None:
    """One of the sources is correct and answers at last."""
    dice = Random(seed)
    download = Download(MANIFEST, set(), KEYS)
    got: dict[int, bytes] = {}
    now = 0.0
    while not download.is_done:
        now += dice.choice((0.1, 1.0, fetching.PART_SECONDS_MAX / 2))
        for key, index in download.asks(now):
            is_good = key == KEYS[0] or dice.random() < 0.5
            if not is_good:
                if dice.random() < 0.5:
                    continue
                # It may have been asked for two parts, and is asked no more after the first.
                with suppress(PeerFault):
                    assert not download.take(key, replace(part(index), data=b"other"))
                continue
            if download.take(key, part(index)):
                got[index] = part(index).data
        assert now < 1000
    assert b"".join(got[index] for index in sorted(got)) == DATA
