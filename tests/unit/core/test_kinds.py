"""Session kinds: the built-in ones, and the registry that finds a kind by name and version.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core import decide
from nocturne.core.kinds import (
    ENTRY_POINT_GROUP,
    FoldError,
    Kind,
    KindRegistry,
    builtin_kinds,
    code_hash,
)
from nocturne.core.kinds.accounts import ACCOUNTS
from nocturne.core.kinds.document import DOCUMENT, merge_patch
from nocturne.core.kinds.facts import FACTS
from nocturne.core.kinds.guard import guarded
from nocturne.core.kinds.kind import ACT_PREFIX
from nocturne.core.kinds.orderbook import ORDERBOOK
from nocturne.core.kinds.proposals import PROPOSALS
from nocturne.core.kinds.text import TEXT
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.strict_json import JsonValue, canonical_json

JSON = "application/json"
SEALED = "application/vnd.nocturne.sealed.v1"
AUTHOR = bytes(range(32))

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
trees: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from("abc"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4)
    ),
    max_leaves=10,
)

# RFC 7396 appendix A: original, patch, result.
RFC_7396: list[tuple[JsonValue, JsonValue, JsonValue]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


def fold_all(kind: Kind, events: list[tuple[str, str, bytes]]) -> JsonValue:
    state = kind.initial()
    for sequence, (event_type, content_type, payload) in enumerate(events, 1):
        state = kind.fold(state, event_type, content_type, payload, AUTHOR, sequence)
    return state


@pytest.mark.parametrize("kind", [DOCUMENT, FACTS, TEXT], ids=lambda kind: kind.name)
def test_a_kind_without_invariants_lets_every_event_stand_without_reading_it(kind: Kind) -> None:
    items = SparseTree[bytes]()
    assert not kind.reads_payloads
    assert kind.invariants == ()
    assert kind.version == 1
    for payload in (b"", b"{", b"\xff" * 100):
        assert kind.apply(items, "Seen", SEALED, payload, bytes(32), 1) == {}


def test_the_built_in_kinds_stand_under_their_names() -> None:
    assert dict(builtin_kinds()) == {
        "accounts": ACCOUNTS,
        "document": DOCUMENT,
        "facts": FACTS,
        "orderbook": ORDERBOOK,
        "proposals": PROPOSALS,
        "text": TEXT,
    }


@pytest.mark.parametrize(
    "kind", [ACCOUNTS, DOCUMENT, ORDERBOOK, PROPOSALS, TEXT], ids=lambda kind: kind.name
)
def test_an_act_of_the_ledger_changes_no_state(kind: Kind) -> None:
    assert decide.ACT_PREFIX == ACT_PREFIX
    payload = b'{"author":"sha256-00","role":"writer","patches":[[0,0,"x"]]}'
    for event_type in ("nocturne.MemberAdded", "nocturne.Opened"):
        assert kind.fold(kind.initial(), event_type, JSON, payload, AUTHOR, 1) == kind.initial()


def test_facts_count_what_was_stated_whatever_the_payload() -> None:
    events = [
        ("Seen", JSON, b"{}"),
        ("Heard", SEALED, b"\x00\xff"),
        ("Seen", "text/plain", b"not { json"),
    ]
    assert fold_all(FACTS, []) == {"facts": 0, "types": {}}
    assert fold_all(FACTS, events) == {"facts": 3, "types": {"Seen": 2, "Heard": 1}}


@pytest.mark.parametrize("target,patch,result", RFC_7396)
def test_a_document_is_merged_as_rfc_7396_says(
    target: JsonValue, patch: JsonValue, result: JsonValue
) -> None:
    before = copy.deepcopy((target, patch))
    assert merge_patch(target, patch) == result
    state: JsonValue = {"document": target, "skipped": 0}
    folded = DOCUMENT.fold(state, "Changed", JSON, canonical_json(patch), AUTHOR, 1)
    assert folded == {"document": result, "skipped": 0}
    assert (target, patch) == before


def test_a_document_begins_as_an_empty_object() -> None:
    assert DOCUMENT.initial() == {"document": {}, "skipped": 0}


@pytest.mark.parametrize("content_type", [JSON, "application/merge-patch+json"])
def test_both_content_types_are_patches_whatever_the_event_type(content_type: str) -> None:
    events = [("A", content_type, b'{"a":1}'), ("B", content_type, b'{"b":{"c":null}}')]
    assert fold_all(DOCUMENT, events) == {"document": {"a": 1, "b": {}}, "skipped": 0}


@pytest.mark.parametrize(
    "content_type,payload",
    [
        (SEALED, b'{"a":2}'),
        ("text/plain", b'{"a":2}'),
        ("Application/JSON", b'{"a":2}'),
        ("application/json; charset=utf-8", b'{"a":2}'),
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b'{"a":2,"a":3}'),
        (JSON, b'{"a":NaN}'),
        (JSON, b'{"a":1e999}'),
        (JSON, b'{"a":9007199254740992}'),
        (JSON, b'{"a":"\\ud800"}'),
        (JSON, b'{"a":"\xff"}'),
        (JSON, b"[" * 65 + b"]" * 65),
    ],
)
def test_an_event_that_is_no_patch_is_skipped_and_counted(
    content_type: str, payload: bytes
) -> None:
    events = [
        ("Changed", JSON, b'{"a":1}'),
        ("Changed", content_type, payload),
        ("Changed", JSON, b'{"b":2}'),
    ]
    assert fold_all(DOCUMENT, events) == {"document": {"a": 1, "b": 2}, "skipped": 1}


def test_a_patch_as_deep_as_allowed_is_applied() -> None:
    patch = b'{"a":' * 64 + b"1" + b"}" * 64
    state = DOCUMENT.fold(DOCUMENT.initial(), "Changed", JSON, patch, AUTHOR, 1)
    assert isinstance(state, dict)
    assert state["skipped"] == 0


@reproducible
@given(st.lists(trees, max_size=6))
def test_folding_leaves_every_earlier_state_as_it_was(patches: list[JsonValue]) -> None:
    states = [DOCUMENT.initial()]
    pictures = [copy.deepcopy(states[0])]
    for sequence, patch in enumerate(patches, 1):
        payload = canonical_json(patch)
        states.append(DOCUMENT.fold(states[-1], "Changed", JSON, payload, AUTHOR, sequence))
        pictures.append(copy.deepcopy(states[-1]))
    assert states == pictures


@reproducible
@given(trees, trees)
def test_a_patch_applied_twice_is_applied_once(target: JsonValue, patch: JsonValue) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@pytest.mark.parametrize("kind", builtin_kinds().values(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("state", [None, {}, [], {"document": 1}, {"facts": 1, "types": []}])
def test_a_foreign_state_is_refused_with_the_place(kind: Kind, state: JsonValue) -> None:
    with pytest.raises(FoldError, match=f"state of {kind.name} at event 7"):
        kind.fold(state, "Seen", JSON, b"{}", AUTHOR, 7)


def test_a_registry_finds_a_kind_only_by_its_exact_name_and_version() -> None:
    second = replace(FACTS, version=2)
    registry = KindRegistry([second, FACTS, DOCUMENT])
    assert registry.get("facts", 1) == guarded(FACTS)
    assert registry.get("facts", 2) == guarded(second)
    assert registry.get("facts", 3) is None
    assert registry.get("Facts", 1) is None
    assert registry.kinds() == (DOCUMENT, FACTS, second)


def test_two_kinds_under_one_name_and_version_are_refused() -> None:
    with pytest.raises(ValueError, match="facts version 1"):
        KindRegistry([FACTS, replace(DOCUMENT, name="facts")])


def test_the_code_hash_is_the_sha_256_of_the_module() -> None:
    assert code_hash(b"source") == sha256(b"source").digest()
    assert ENTRY_POINT_GROUP == "nocturne.kinds"
