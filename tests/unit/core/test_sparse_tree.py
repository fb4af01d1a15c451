"""The sparse tree against a model that computes every root from the pairs alone.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.errors import Malformed
from nocturne.core.sparse_tree import (
    EMPTY,
    EMPTY_HASH,
    Proof,
    SparseTree,
    root_from_proof,
    shared_bits,
)

Pairs = Mapping[bytes, bytes]

reproducible = settings(derandomize=True, deadline=None, max_examples=200)


def close_key(number: int) -> bytes:
    """Keys that part at the top, in the middle and at the very last bit."""
    return (
        bytes((number & 0xC0,))
        + bytes(14)
        + bytes((number & 0x30,))
        + bytes(15)
        + bytes((number & 15,))
    )


keys = st.one_of(
    st.integers(0, 255).map(close_key),
    st.integers(0, 20).map(lambda number: sha256(bytes((number,))).digest()),
)
values = st.binary(max_size=3)
models = st.dictionaries(keys, values, max_size=24)


def plain_root(pairs: Pairs, depth: int = 0) -> bytes:
    """The rules of sparse_tree.py, word for word, with nothing kept."""
    if not pairs:
        return bytes(32)
    if len(pairs) == 1:
        ((key, value),) = pairs.items()
        return sha256(b"\x00" + key + value).digest()
    halves: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for key, value in pairs.items():
        halves[int.from_bytes(key) >> (255 - depth) & 1][key] = value
    left, right = (plain_root(half, depth + 1) for half in halves)
    return sha256(b"\x01" + left + right).digest()


def tree_of(pairs: Pairs) -> SparseTree[str]:
    return SparseTree[str]().update(changes_of(pairs))


def changes_of(pairs: Pairs) -> dict[bytes, tuple[bytes, str] | None]:
    return {key: (value, value.hex()) for key, value in pairs.items()}


def flipped(data: bytes, bit: int = 0) -> bytes:
    return (int.from_bytes(data) ^ (1 << (255 - bit))).to_bytes(32)


def assert_holds(tree: SparseTree[str], pairs: Pairs) -> None:
    assert tree.root_hash == plain_root(pairs)
    assert tree.size == len(pairs)
    assert list(tree.items()) == [(key, pairs[key].hex()) for key in sorted(pairs)]


def test_the_empty_tree_is_32_zero_bytes() -> None:
    assert EMPTY.root_hash == EMPTY_HASH == bytes(32)
    assert EMPTY.size == 0
    assert list(EMPTY.items()) == []
    assert EMPTY.prove(close_key(0)) == Proof((), None)


def test_a_lone_leaf_stands_for_the_whole_tree() -> None:
    key = close_key(7)
    expected = sha256(b"\x00" + key + b"value").digest()
    assert tree_of({key: b"value"}).root_hash == expected


def test_the_root_of_three_known_keys_is_pinned() -> None:
    tree = tree_of({close_key(0): b"a", close_key(1): b"b", close_key(192): b""})
    assert (
        tree.root_hash.hex() == "2a9a70b198547a35358d378b268a5900f0f5ecc77f8215940b457a1346002c74"
    )


@reproducible
@given(models, st.dictionaries(keys, st.none() | values, max_size=16))
def test_an_update_gives_the_root_of_the_pairs_alone(
    before: dict[bytes, bytes], changes: dict[bytes, bytes | None]
) -> None:
    tree = tree_of(before)
    after = tree.update({k: None if v is None else (v, v.hex()) for k, v in changes.items()})
    expected = {k: v for k, v in {**before, **changes}.items() if v is not None}
    assert_holds(after, expected)
    assert_holds(tree, before)
    for key in {*before, *changes}:
        value = expected.get(key)
        assert after.value(key) == value
        assert after.get(key) == (None if value is None else value.hex())


@reproducible
@given(models, st.randoms(use_true_random=False))
def test_one_batch_and_single_steps_in_any_order_give_the_same_tree(
    pairs: dict[bytes, bytes], random: Random
) -> None:
    order = list(pairs)
    random.shuffle(order)
    tree = SparseTree[str]()
    for key in order:
        tree = tree.update({key: (pairs[key], pairs[key].hex())})
    assert_holds(tree, pairs)
    assert tree.root_hash == tree_of(pairs).root_hash


@reproducible
@given(models, st.dictionaries(keys, values, min_size=1, max_size=8))
def test_deleting_what_was_added_restores_the_root(
    before: dict[bytes, bytes], added: dict[bytes, bytes]
) -> None:
    tree = tree_of(before)
    fresh = {key: value for key, value in added.items() if key not in before}
    grown = tree.update(changes_of(fresh))
    assert grown.update(dict.fromkeys(fresh)).root_hash == tree.root_hash
    one_by_one = grown
    for key in fresh:
        one_by_one = one_by_one.update({key: None})
    assert_holds(one_by_one, before)


def test_a_leaf_left_alone_rises_through_all_levels() -> None:
    deep, beside = close_key(0), close_key(1)
    tree = tree_of({deep: b"a", beside: b"b"})
    assert len(tree.prove(deep).siblings) == 256
    alone = tree.update({beside: None})
    assert alone.prove(deep) == Proof((), (deep, b"a"))
    assert_holds(alone, {deep: b"a"})


def test_what_changes_nothing_hashes_nothing_anew() -> None:
    tree = tree_of({close_key(number): b"v" for number in range(9)})
    value = tree.get(close_key(3))
    assert value is not None
    same = tree.update({close_key(3): (b"v", value), close_key(200): None, close_key(201): None})
    assert same._root is tree._root
    assert tree.update({}) is tree


def test_a_new_item_with_the_same_value_is_found_and_keeps_the_root() -> None:
    tree = SparseTree[str]().update({close_key(1): (b"v", "old"), close_key(2): (b"w", "other")})
    after = tree.update({close_key(1): (b"v", "new")})
    assert (tree.get(close_key(1)), after.get(close_key(1))) == ("old", "new")
    assert after.root_hash == tree.root_hash


@reproducible
@given(models, keys)
def test_a_proof_shows_the_value_or_its_absence(pairs: dict[bytes, bytes], asked: bytes) -> None:
    tree = tree_of(pairs)
    for key in {asked, *pairs}:
        assert root_from_proof(key, tree.prove(key)) == (tree.root_hash, pairs.get(key))


@reproducible
@given(models, keys, st.data())
def test_a_tampered_proof_is_refused_or_speaks_of_another_root(
    pairs: dict[bytes, bytes], key: bytes, data: st.DataObject
) -> None:
    tree = tree_of(pairs)
    good = tree.prove(key)
    siblings, leaf = good.siblings, good.leaf
    place = data.draw(st.integers(0, len(siblings)))
    forged = [
        Proof((*siblings[:place], EMPTY_HASH, *siblings[place:]), leaf),
        Proof((*siblings[:place], sha256(b"x").digest(), *siblings[place:]), leaf),
        Proof(siblings, (key, b"forged")),
    ]
    if siblings:
        place = data.draw(st.integers(0, len(siblings) - 1))
        changed = flipped(siblings[place], data.draw(st.integers(0, 255)))
        forged += [
            Proof((*siblings[:place], changed, *siblings[place + 1 :]), leaf),
            Proof(siblings[:place] + siblings[place + 1 :], leaf),
            Proof(siblings[:place], leaf),
        ]
    if leaf is not None:
        forged += [
            Proof(siblings, None),
            Proof(siblings, (leaf[0], leaf[1] + b"\x00")),
            Proof(siblings, (flipped(leaf[0], data.draw(st.integers(0, 255))), leaf[1])),
        ]
    for proof in forged:
        if proof != good:
            try:
                shown, _ = root_from_proof(key, proof)
            except Malformed:
                continue
            assert shown != tree.root_hash


@reproducible
@given(models, keys, keys)
def test_a_proof_for_one_key_says_nothing_false_of_another(
    pairs: dict[bytes, bytes], key: bytes, other: bytes
) -> None:
    tree = tree_of(pairs)
    try:
        shown, value = root_from_proof(other, tree.prove(key))
    except Malformed:
        return
    assert shown != tree.root_hash or value == pairs.get(other)


def test_a_present_key_cannot_be_shown_absent_by_another_leaf() -> None:
    near, far = close_key(0), close_key(192)
    tree = tree_of({near: b"n", far: b"f"})
    with pytest.raises(Malformed, match="first 1 bits"):
        root_from_proof(near, Proof(tree.prove(far).siblings, (far, b"f")))


@pytest.mark.parametrize("leaf", [None, (close_key(0), b"v"), (close_key(1), b"v")])
def test_a_last_sibling_without_leaves_is_malformed(leaf: tuple[bytes, bytes] | None) -> None:
    with pytest.raises(Malformed, match="last sibling"):
        root_from_proof(close_key(0), Proof((sha256(b"x").digest(), EMPTY_HASH), leaf))


def test_siblings_without_leaves_above_the_last_are_part_of_the_tree() -> None:
    tree = tree_of({close_key(0): b"a", close_key(1): b"b"})
    siblings = tree.prove(close_key(0)).siblings
    assert siblings[:255] == (EMPTY_HASH,) * 255
    assert siblings[255] == sha256(b"\x00" + close_key(1) + b"b").digest()


@pytest.mark.parametrize(
    "key,proof",
    [
        (bytes(31), Proof((), None)),
        (bytes(33), Proof((), None)),
        (bytes(32), Proof((), (bytes(31), b""))),
        (bytes(32), Proof((b"\x01" * 31,), None)),
        (bytes(32), Proof((b"\x01" * 32,) * 257, None)),
        (bytes(32), Proof((b"\x01" * 32,) * 257, (bytes(32), b""))),
        (bytes(32), Proof((b"\x01" * 32,) * 256, None)),
    ],
)
def test_a_proof_out_of_bounds_is_malformed(key: bytes, proof: Proof) -> None:
    with pytest.raises(Malformed):
        root_from_proof(key, proof)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_malformed(length: int) -> None:
    key = bytes(length)
    with pytest.raises(Malformed, match="key"):
        EMPTY.update({key: (b"", "")})
    with pytest.raises(Malformed, match="key"):
        EMPTY.get(key)
    with pytest.raises(Malformed, match="key"):
        EMPTY.prove(key)


def test_shared_bits_count_from_the_highest() -> None:
    assert shared_bits(bytes(32), bytes(32)) == 256
    assert shared_bits(bytes(32), b"\x80" + bytes(31)) == 0
    assert shared_bits(bytes(32), bytes(31) + b"\x01") == 255
