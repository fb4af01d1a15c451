"""The kind `proposals`: one choice among candidates, the same for every order of them, and both
halves agree.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import Draft, Ledger, make_genesis

from nocturne.core.choice import choose
from nocturne.core.genesis import Genesis, KindEntry
from nocturne.core.identifiers import Hash, format_hash
from nocturne.core.kinds import FoldError, Violation
from nocturne.core.kinds import proposals as module
from nocturne.core.kinds.guard import guarded
from nocturne.core.kinds.proposals import CANDIDATE_BYTES_MAX, PROPOSALS, UTILITY_MAX
from nocturne.core.receipts import Reason, ReceiptHeader
from nocturne.core.strict_json import JsonValue, canonical_json

JSON = "application/json"
SEALED = "application/vnd.nocturne.sealed.v1"
ANN, BEN = (bytes([number]) * 32 for number in (1, 2))
KIND = guarded(PROPOSALS)

reproducible = settings(derandomize=True, deadline=None, max_examples=300)
candidates = st.sampled_from(["river", "hills", "bridge", "tunnel", "Fähre", "ferry"])
utilities = st.integers(-3, 3) | st.sampled_from([UTILITY_MAX, -UTILITY_MAX])
proposed = st.lists(st.tuples(candidates, utilities), min_size=1, max_size=12)


def hash_of(candidate: str) -> str:
    return format_hash(sha256(candidate.encode()).digest())


@dataclass
class Story:
    """A session: the items of validators and the state of readers, event by event."""

    items: dict[bytes, bytes] = field(default_factory=dict)
    state: Any = field(default_factory=KIND.initial)
    sequence: int = 0

    def tell(self, event_type: str, value: Any, author: bytes = ANN) -> str | None:
        return self.tell_bytes(event_type, json.dumps(value).encode("ascii"), author)

    def tell_bytes(
        self, event_type: str, payload: bytes, author: bytes = ANN, content_type: str = JSON
    ) -> str | None:
        """The invariant it would break; None if it stands."""
        event = (event_type, content_type, payload, author, self.sequence + 1)
        answer = KIND.apply(self.items, *event)
        if isinstance(answer, Violation):
            return answer.invariant
        for key, value in answer.items():
            assert value is not None
            self.items[key] = value
        before = canonical_json(self.state)
        state = KIND.fold(self.state, *event)
        assert canonical_json(self.state) == before
        self.state = state
        self.sequence += 1
        canonical_json(state)
        return None

    def propose(self, candidate: str, utility: int, author: bytes = ANN) -> str | None:
        return self.tell("Proposed", {"candidate": candidate, "utility": utility}, author)

    def choose(self, candidate: str, author: bytes = ANN) -> str | None:
        return self.tell("Chosen", {"candidate": hash_of(candidate)}, author)


def told(entries: Sequence[tuple[str, int]]) -> Story:
    story = Story()
    for candidate, utility in entries:
        assert story.propose(candidate, utility) is None
    return story


def expected(entries: Sequence[tuple[str, int]]) -> str:
    """By `core.choice`, which knows nothing of sessions."""
    worth: dict[bytes, int] = {}
    for candidate, utility in entries:
        data = candidate.encode()
        worth[data] = max(utility, worth.get(data, utility))
    return format_hash(sha256(choose(worth, worth.__getitem__)).digest())


@given(proposed, st.randoms(use_true_random=False))
@reproducible
def test_every_order_of_candidates_gives_the_same_choice(
    entries: list[tuple[str, int]], dice: Random
) -> None:
    """In what readers see, in what validators keep, and in all of both but who came first."""
    first = told(entries)
    assert first.state["choice"] == expected(entries)
    for _ in range(4):
        shuffled = list(entries)
        dice.shuffle(shuffled)
        other = told(shuffled)
        assert other.items == first.items
        assert canonical_json(other.state) == canonical_json(first.state)


def test_every_permutation_of_equals_chooses_the_smallest_hash() -> None:
    entries = [(one, 7) for one in ("river", "hills", "bridge", "tunnel")]
    smallest = min((hash_of(one) for one, _ in entries))
    for order in permutations(entries):
        assert told(order).state["choice"] == smallest


@given(proposed, st.lists(st.tuples(candidates, st.sampled_from([ANN, BEN])), max_size=4))
@reproducible
def test_only_the_chair_ends_it_and_only_with_the_choice(
    entries: list[tuple[str, int]], claims: list[tuple[str, bytes]]
) -> None:
    story = told(entries)
    choice = expected(entries)
    closed = False
    for candidate, author in claims:
        fault = story.choose(candidate, author)
        if closed:
            assert fault == "proposals.open"
        elif author != ANN:
            assert fault == "proposals.chair"
        elif hash_of(candidate) != choice:
            assert fault == "proposals.choice"
        else:
            assert fault is None
            closed = True
        assert (story.state["closed"], story.state["choice"]) == (closed, choice)
    if closed:
        assert story.propose("late", UTILITY_MAX) == "proposals.open"


def test_validators_and_readers_have_the_same_choice() -> None:
    story = told([("river", 4), ("hills", 9), ("river", 2)])
    (item,) = story.items.values()
    assert item[:32] == ANN
    assert item[49:] == sha256(b"hills").digest()
    assert int.from_bytes(item[41:49], "big") == 9 + 2**53
    assert story.state == {
        "candidates": {
            hash_of("river"): {"candidate": "river", "utility": 4},
            hash_of("hills"): {"candidate": "hills", "utility": 9},
        },
        "chair": format_hash(ANN),
        "choice": hash_of("hills"),
        "closed": False,
        "proposed": 3,
    }


def test_a_candidate_has_the_largest_utility_that_was_said_of_it() -> None:
    story = told([("river", 4), ("hills", 5), ("river", 6), ("river", 1)])
    assert story.state["choice"] == hash_of("river")
    assert story.state["candidates"][hash_of("river")]["utility"] == 6


def test_nothing_is_chosen_of_nothing_and_a_session_without_a_chair_stays_open() -> None:
    assert Story().choose("river") == "proposals.choice"
    begun = Story(sequence=1)
    assert begun.choose("river") == "proposals.chair"
    assert begun.propose("river", 1) is None
    assert begun.choose("river") == "proposals.chair"
    assert begun.state["chair"] is None


def test_what_was_proposed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROPOSED_MAX", 3)
    story = told([("river", 1), ("river", 2), ("hills", 1)])
    assert story.propose("bridge", 9) == "proposals.proposed_max"
    assert story.choose("river") is None


@pytest.mark.parametrize(
    "event_type,payload",
    [
        ("Proposed", {"candidate": "", "utility": 1}),
        ("Proposed", {"candidate": "x" * (CANDIDATE_BYTES_MAX + 1), "utility": 1}),
        ("Proposed", {"candidate": "é" * (CANDIDATE_BYTES_MAX // 2 + 1), "utility": 1}),
        ("Proposed", {"candidate": "x", "utility": True}),
        ("Proposed", {"candidate": "x", "utility": 1.5}),
        ("Proposed", {"candidate": "x", "utility": "1"}),
        ("Proposed", {"candidate": "x", "utility": 2**53}),
        ("Proposed", {"candidate": "x"}),
        ("Proposed", {"candidate": "x", "utility": 1, "more": 1}),
        ("Proposed", {"candidate": 1, "utility": 1}),
        ("Proposed", {"candidate": "\ud800", "utility": 1}),
        ("Proposed", ["x", 1]),
        ("Chosen", {"candidate": "river"}),
        ("Chosen", {"candidate": "sha256-" + "A" * 64}),
        ("Chosen", {}),
        ("Seen", {"candidate": "x", "utility": 1}),
    ],
)
def test_what_is_of_another_form_does_not_stand(event_type: str, payload: Any) -> None:
    story = told([("river", 1)])
    assert story.tell(event_type, payload) == "proposals.form"
    data = json.dumps(payload).encode()
    assert KIND.fold(story.state, event_type, JSON, data, ANN, 2) == story.state


def test_the_largest_candidate_and_utilities_stand() -> None:
    escaped = b'{"candidate":"%s","utility":-%d}' % (b"\\u0041" * CANDIDATE_BYTES_MAX, UTILITY_MAX)
    story = Story()
    assert story.tell_bytes("Proposed", escaped) is None
    assert story.propose("x", UTILITY_MAX) is None
    assert story.state["choice"] == hash_of("x")
    assert story.tell_bytes("Proposed", escaped, content_type="text/plain") == "proposals.form"


@given(st.binary(max_size=200), st.sampled_from(["Proposed", "Chosen"]))
@reproducible
def test_any_payload_gets_an_answer(payload: bytes, event_type: str) -> None:
    story = told([("river", 1)])
    assert story.tell_bytes(event_type, payload) == "proposals.form"


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"candidates": [], "chair": None, "choice": None, "closed": False, "proposed": 0},
        {"candidates": {}, "chair": None, "choice": "x", "closed": False, "proposed": 0},
        {"candidates": {hash_of("river"): 3}, "chair": None, "choice": None, "closed": False,
         "proposed": 0},
    ],
)  # fmt: skip
def test_a_foreign_state_is_refused(state: JsonValue) -> None:
    with pytest.raises(FoldError):
        PROPOSALS.fold(state, "Proposed", JSON, b'{"candidate":"river","utility":1}', ANN, 2)


# On a ledger ------------------------------------------------------------------------------------


def genesis() -> Genesis:
    entry = KindEntry("proposals", 1, Hash(bytes(32)))
    made = make_genesis()
    return replace(made, kinds=tuple(sorted((*made.kinds, entry), key=lambda one: one.name)))


def test_a_ledger_refuses_what_is_not_the_choice_with_a_receipt_that_names_the_rule() -> None:
    def draft(event_type: str, value: JsonValue, content_type: str = JSON) -> Draft:
        return Draft(event_type, canonical_json(value), content_type)

    ledger = Ledger(genesis())
    one = draft("Proposed", {"candidate": "river", "utility": 1})
    assert isinstance(ledger.answer(ledger.opening("r", one, kind="proposals")), tuple)
    other = draft("Proposed", {"candidate": "hills", "utility": 1})
    assert isinstance(ledger.answer(ledger.command("r", other, number=2)), tuple)
    right, wrong = sorted(("river", "hills"), key=hash_of)
    for number, candidate, invariant in ((3, wrong, "proposals.choice"), (4, right, None)):
        chosen = draft("Chosen", {"candidate": hash_of(candidate)})
        answer = ledger.answer(ledger.command("r", chosen, number=number))
        if invariant is None:
            assert isinstance(answer, tuple)
        else:
            assert isinstance(answer, ReceiptHeader)
            assert (answer.reason, answer.violated_invariant) == (
                Reason.INVARIANT_VIOLATION,
                invariant,
            )
    late = ledger.answer(ledger.command("r", one, number=5))
    assert isinstance(late, ReceiptHeader)
    assert late.violated_invariant == "proposals.open"
