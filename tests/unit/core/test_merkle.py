"""Merkle trees against the vectors of certificate-transparency and a plain recursion of RFC 6962.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core import merkle
from nocturne.core.errors import Malformed
from nocturne.core.merkle import EMPTY_ROOT, Frontier

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
SIZE_MAX = 70
MANY = [merkle.leaf_hash(bytes((number,))) for number in range(SIZE_MAX)]

sizes = st.integers(1, SIZE_MAX)
reproducible = settings(derandomize=True, deadline=None, max_examples=200)


def plain_root(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = plain_split(len(hashes))
    return sha256(b"\x01" + plain_root(hashes[:k]) + plain_root(hashes[k:])).digest()


def plain_path(m: int, hashes: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1, word for word."""
    if len(hashes) == 1:
        return []
    k = plain_split(len(hashes))
    if m < k:
        return [*plain_path(m, hashes[:k]), plain_root(hashes[k:])]
    return [*plain_path(m - k, hashes[k:]), plain_root(hashes[:k])]


def plain_subproof(m: int, hashes: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2, word for word."""
    if m == len(hashes):
        return [] if whole else [plain_root(hashes)]
    k = plain_split(len(hashes))
    if m <= k:
        return [*plain_subproof(m, hashes[:k], whole), plain_root(hashes[k:])]
    return [*plain_subproof(m - k, hashes[k:], False), plain_root(hashes[:k])]


def plain_split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def flipped(value: bytes) -> bytes:
    return bytes((value[0] ^ 1,)) + value[1:]


def test_a_leaf_and_a_node_hash_as_the_reference_does() -> None:
    assert merkle.leaf_hash(b"L123456").hex() == (
        "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    )
    assert merkle.node_hash(b"N123", b"N456").hex() == (
        "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    )


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root(HASHES[:size]).hex() == ROOTS[size]
    assert Frontier.EMPTY.extend(HASHES[:size]).root().hex() == ROOTS[size]


@pytest.mark.parametrize("case", INCLUSION)
def test_inclusion_paths_are_those_of_certificate_transparency(case: tuple[int, int]) -> None:
    index, size = case
    path = merkle.inclusion_path(HASHES[:size], index)
    assert [part.hex() for part in path] == INCLUSION[case]
    assert merkle.root_from_inclusion(HASHES[index], index, size, path).hex() == ROOTS[size]


@pytest.mark.parametrize("case", CONSISTENCY)
def test_consistency_paths_are_those_of_certificate_transparency(case: tuple[int, int]) -> None:
    old, new = case
    path = merkle.consistency_path(HASHES[:new], old)
    assert [part.hex() for part in path] == CONSISTENCY[case]
    assert merkle.verify_consistency(
        merkle.root(HASHES[:old]), old, merkle.root(HASHES[:new]), new, path
    )


@pytest.mark.parametrize("size", range(SIZE_MAX + 1))
def test_root_and_frontier_agree_with_the_recursion_of_the_rfc(size: int) -> None:
    frontier = Frontier.EMPTY
    for leaf in MANY[:size]:
        frontier = frontier.append(leaf)
    assert merkle.root(MANY[:size]) == frontier.root() == plain_root(MANY[:size])
    assert frontier == Frontier.EMPTY.extend(MANY[:size])
    assert frontier.size == size


def test_every_inclusion_path_agrees_with_the_rfc_and_leads_to_the_root() -> None:
    for size in range(1, 34):
        leaves = MANY[:size]
        for index in range(size):
            path = merkle.inclusion_path(leaves, index)
            assert list(path) == plain_path(index, leaves)
            assert merkle.root_from_inclusion(leaves[index], index, size, path) == plain_root(
                leaves
            )


def test_every_consistency_path_agrees_with_the_rfc_and_verifies() -> None:
    for new in range(1, 34):
        for old in range(1, new + 1):
            path = merkle.consistency_path(MANY[:new], old)
            assert list(path) == plain_subproof(old, MANY[:new], True)
            assert merkle.verify_consistency(
                plain_root(MANY[:old]), old, plain_root(MANY[:new]), new, path
            )


def test_the_empty_tree_is_the_beginning_of_every_tree_and_needs_no_path() -> None:
    for new in range(9):
        new_root = merkle.root(MANY[:new])
        assert merkle.consistency_path(MANY[:new], 0) == ()
        assert merkle.verify_consistency(EMPTY_ROOT, 0, new_root, new, ())
        assert not merkle.verify_consistency(EMPTY_ROOT, 0, new_root, new, (MANY[0],))
        assert not merkle.verify_consistency(MANY[0], 0, new_root, new, ())
    assert not merkle.verify_consistency(EMPTY_ROOT, 0, MANY[0], 0, ())


@reproducible
@given(sizes, st.data())
def test_a_changed_leaf_index_or_path_never_leads_to_the_root(
    size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = MANY[:size]
    expected = merkle.root(leaves)
    path = merkle.inclusion_path(leaves, index)
    assert merkle.root_from_inclusion(flipped(leaves[index]), index, size, path) != expected
    for place in range(len(path)):
        changed = (*path[:place], flipped(path[place]), *path[place + 1 :])
        assert merkle.root_from_inclusion(leaves[index], index, size, changed) != expected
    other = data.draw(
        st.integers(0, size - 1).filter(lambda drawn: drawn != index) if size > 1 else st.none()
    )
    if other is not None and len(merkle.inclusion_path(leaves, other)) == len(path):
        assert merkle.root_from_inclusion(leaves[index], other, size, path) != expected


@reproducible
@given(sizes, st.data())
def test_a_path_that_is_too_long_or_too_short_is_malformed(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(MANY[:size], index)
    with pytest.raises(Malformed, match="inclusion path"):
        merkle.root_from_inclusion(MANY[index], index, size, (*path, MANY[0]))
    if path:
        with pytest.raises(Malformed, match="inclusion path"):
            merkle.root_from_inclusion(MANY[index], index, size, path[:-1])
        with pytest.raises(Malformed, match="32 bytes"):
            merkle.root_from_inclusion(MANY[index], index, size, (*path[:-1], path[-1][:31]))


@pytest.mark.parametrize("index,size", [(0, 0), (1, 1), (-1, 4), (4, 4), (0, -1)])
def test_an_index_outside_the_tree_is_malformed(index: int, size: int) -> None:
    with pytest.raises(Malformed, match="leaf index"):
        merkle.root_from_inclusion(MANY[0], index, size, ())
    with pytest.raises(Malformed, match="leaf index"):
        merkle.inclusion_path(MANY[: max(size, 0)], index)


@pytest.mark.parametrize("old", [-1, 4])
def test_an_old_size_outside_the_tree_is_malformed(old: int) -> None:
    with pytest.raises(Malformed, match="old size"):
        merkle.consistency_path(MANY[:3], old)


@reproducible
@given(sizes, st.data())
def test_no_changed_consistency_proof_verifies(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    old_root, new_root = merkle.root(MANY[:old]), merkle.root(MANY[:new])
    path = merkle.consistency_path(MANY[:new], old)

    holds = merkle.verify_consistency
    assert holds(old_root, old, new_root, new, path)
    assert not holds(flipped(old_root), old, new_root, new, path)
    assert not holds(old_root, old, flipped(new_root), new, path)
    assert not holds(old_root, old, new_root, new, (*path, MANY[0]))
    assert not holds(old_root, old, new_root, new, (MANY[0], *path))
    assert not holds(new_root, new + 1, old_root, new, path)
    assert not holds(old_root[:31], old, new_root, new, path)
    for place in range(len(path)):
        rest = path[place + 1 :]
        assert not holds(old_root, old, new_root, new, (*path[:place], flipped(path[place]), *rest))
        assert not holds(old_root, old, new_root, new, (*path[:place], *rest))
        assert not holds(old_root, old, new_root, new, (*path[:place], path[place][1:], *rest))


@reproducible
@given(st.lists(st.integers(0, 5), max_size=20))
def test_a_frontier_does_not_depend_on_how_leaves_arrive(portions: list[int]) -> None:
    frontier, taken = Frontier.EMPTY, 0
    for portion in portions:
        frontier = frontier.extend(MANY[(taken + step) % SIZE_MAX] for step in range(portion))
        taken += portion
    at_once = Frontier.EMPTY.extend(MANY[number % SIZE_MAX] for number in range(taken))
    assert frontier == at_once
    assert len(frontier.peaks) == taken.bit_count()


def test_the_peaks_stand_largest_subtree_first() -> None:
    assert Frontier.EMPTY.extend(MANY[:6]).peaks == (plain_root(MANY[:4]), plain_root(MANY[4:6]))


@pytest.mark.parametrize(
    "size,peaks", [(1, ()), (0, (MANY[0],)), (3, (MANY[0],)), (-1, (MANY[0],))]
)
def test_a_frontier_with_another_number_of_peaks_is_malformed(
    size: int, peaks: tuple[bytes, ...]
) -> None:
    with pytest.raises(Malformed, match="frontier"):
        Frontier(size, peaks)


def test_a_frontier_peak_of_another_length_is_malformed() -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        Frontier(1, (MANY[0][:31],))
