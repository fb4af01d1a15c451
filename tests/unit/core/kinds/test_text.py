"""The kind `text`, against a replay over plain lists of code points.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.kinds import text as text_module
from nocturne.core.kinds.text import TEXT, TEXT_CHARACTERS_MAX, WHOLE_PATCHES_MAX, patch_text
from nocturne.core.strict_json import JsonValue, canonical_json

JSON = "application/json"
SEALED = "application/vnd.nocturne.sealed.v1"
AUTHOR = bytes(32)

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
# Of one, two, three and four bytes of UTF-8; one that combines, one that joins.
characters = st.text(st.sampled_from("ab é\u0301ß語\u200d\U0001f600\U0001d11e\n\x00"), max_size=12)
numbers: st.SearchStrategy[Any] = st.one_of(
    st.integers(-2, 30), st.sampled_from([True, False, 1.5, 2**31, 2**53 - 1, "1", None])
)
patches = st.tuples(st.integers(0, 20), st.integers(0, 6), characters).map(list)
entries: st.SearchStrategy[Any] = st.one_of(
    patches,
    patches,
    st.tuples(numbers, numbers, characters).map(list),
    st.lists(numbers, max_size=4),
    st.none(),
)
edits = st.lists(st.one_of(patches, patches, entries), max_size=9)


def edit(*entries: Any) -> bytes:
    return json.dumps({"patches": entries}).encode("ascii")


def after(*payloads: bytes, content_type: str = JSON) -> JsonValue:
    state = TEXT.initial()
    for sequence, payload in enumerate(payloads, 1):
        state = TEXT.fold(state, "Edited", content_type, payload, AUTHOR, sequence)
    return state


def naive(payloads: list[list[Any]]) -> JsonValue:
    """The rule once more, one code point at a time."""
    points: list[str] = []
    skipped = 0
    for entries in payloads:
        trial = list(points)
        for entry in entries:
            if (
                isinstance(entry, list)
                and len(entry) == 3
                and all(isinstance(one, int) and not isinstance(one, bool) for one in entry[:2])
                and isinstance(entry[2], str)
                and min(entry[:2]) >= 0
                and entry[0] + entry[1] <= len(trial)
            ):
                for _ in range(entry[1]):
                    trial.pop(entry[0])
                for character in reversed(entry[2]):
                    trial.insert(entry[0], character)
            else:
                skipped += 1
                break
        else:
            points = trial
    return {"text": "".join(points), "skipped": skipped}


@reproducible
@given(st.lists(edits, max_size=8), st.sampled_from([1, 2, 3, 8192]))
def test_a_text_is_what_a_replay_over_code_points_gives(
    payloads: list[list[Any]], piece_characters: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_module, "PIECE_CHARACTERS", piece_characters)
        assert after(*(edit(*entries) for entries in payloads)) == naive(payloads)


@reproducible
@given(st.integers(0, 2**32), st.sampled_from([1, 5, 64]))
def test_many_patches_in_one_event_are_what_they_are_one_by_one(seed: int, piece: int) -> None:
    dice = random.Random(seed)
    text, made = "", []
    for _ in range(60):
        position = dice.randint(0, len(text))
        deleted = dice.randint(0, min(len(text) - position, dice.choice([0, 2, 40])))
        inserted = "".join(dice.choices("ab語\U0001f600", k=dice.choice([0, 1, 3, 90])))
        made.append((position, deleted, inserted))
        text = text[:position] + inserted + text[position + deleted :]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_module, "PIECE_CHARACTERS", piece)
        assert patch_text("", made) == text


@reproducible
@given(st.lists(edits, max_size=5))
def test_folding_leaves_every_earlier_state_as_it_was(payloads: list[list[Any]]) -> None:
    states = [TEXT.initial()]
    pictures = [copy.deepcopy(states[0])]
    for sequence, entries in enumerate(payloads, 1):
        states.append(TEXT.fold(states[-1], "Edited", JSON, edit(*entries), AUTHOR, sequence))
        pictures.append(copy.deepcopy(states[-1]))
        canonical_json(states[-1])
    assert states == pictures


def test_the_event_type_does_not_matter_and_white_space_neither() -> None:
    state = TEXT.fold(TEXT.initial(), "Whatever", JSON, b' { "patches" : [[0,0,"a"]] } ', AUTHOR, 1)
    assert state == {"text": "a", "skipped": 0}


def test_no_patch_is_an_edit_that_changes_nothing() -> None:
    assert after(edit()) == {"text": "", "skipped": 0}


def test_positions_count_code_points_not_bytes_or_graphemes() -> None:
    # A clef outside the basic plane, and an e with a combining accent: three code points.
    assert after(edit([0, 0, "\U0001d11ee\u0301"]), edit([1, 1, "a"]), edit([3, 0, "!"])) == {
        "text": "\U0001d11ea\u0301!",
        "skipped": 0,
    }


def test_a_pair_of_escaped_surrogates_is_one_code_point() -> None:
    assert after(b'{"patches":[[0,0,"\\ud834\\udd1e"],[1,0,"."]]}') == {
        "text": "\U0001d11e.",
        "skipped": 0,
    }


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"patches":{}}',
        b'{"patches":[[0,0,"x"]],"more":1}',
        b'{"patches":[[0,0,"x"]],"patches":[]}',
        b'{"patches":[[0,0]]}',
        b'{"patches":[[0,0,"x",0]]}',
        b'{"patches":[[true,0,"x"]]}',
        b'{"patches":[[0,false,"x"]]}',
        b'{"patches":[[0.5,0,"x"]]}',
        b'{"patches":[["0",0,"x"]]}',
        b'{"patches":[[0,0,null]]}',
        b'{"patches":[[-1,0,"x"]]}',
        b'{"patches":[[0,-1,"x"]]}',
        b'{"patches":[[3,0,"x"]]}',
        b'{"patches":[[0,3,"x"]]}',
        b'{"patches":[[1,2,"x"]]}',
        b'{"patches":[[9007199254740991,0,"x"]]}',
        b'{"patches":[[0,9007199254740991,"x"]]}',
        b'{"patches":[[9007199254740992,0,"x"]]}',
        b'{"patches":[[1' + b"0" * 400 + b',0,"x"]]}',
        b'{"patches":[[0,1e400,"x"]]}',
        b'{"patches":[[0,0,"\\ud800"]]}',
        b'{"patches":[[0,0,"\\udd1e\\ud834"]]}',
        b'{"patches":[[0,0,"\xed\xa0\x80"]]}',
        b'{"patches":[[0,0,"\xff"]]}',
        b'{"patches":[[0,0,["x"]]]}',
        b'{"patches":' + b"[" * 300 + b"]" * 300 + b"}",
        b'\xef\xbb\xbf{"patches":[]}',
        b'{"patches":[[0,0,"good"],[99,0,"bad"]]}',
    ],
)
def test_an_event_that_is_no_edit_is_skipped_as_a_whole_and_counted(payload: bytes) -> None:
    assert after(edit([0, 0, "ab"]), payload, edit([2, 0, "c"])) == {"text": "abc", "skipped": 1}


@pytest.mark.parametrize("content_type", [SEALED, "text/plain", "application/json; charset=utf-8"])
def test_an_event_of_another_content_type_is_skipped(content_type: str) -> None:
    payload = edit([0, 0, "x"])
    assert after(payload, content_type=content_type) == {"text": "", "skipped": 1}


def test_a_whole_number_is_an_integer_whatever_its_spelling() -> None:
    assert after(b'{"patches":[[0.0,0e3,"x"],[10e-1,0,"y"]]}') == {"text": "xy", "skipped": 0}


@pytest.mark.parametrize("patches", [1, WHOLE_PATCHES_MAX + 1])
def test_a_text_grows_to_its_bound_and_not_beyond(patches: int) -> None:
    full = "x" * TEXT_CHARACTERS_MAX
    nothing = [(0, 0, "")] * (patches - 1)
    assert patch_text(full[1:], [*nothing, (0, 0, "x")]) == full
    assert patch_text(full, [*nothing, (0, 1, "y")]) == "y" + full[1:]
    assert patch_text(full, [*nothing, (0, 0, "y")]) is None
    # Room that a later patch makes comes too late: each patch keeps the bound.
    assert patch_text(full, [*nothing, (0, 0, "y"), (0, 1, "")]) is None


def test_a_long_session_folds_to_the_text_that_was_written() -> None:
    """As an editor writes: 30 000 events on a text that grows to 50 000 characters."""
    dice = random.Random(20)
    state: JsonValue = TEXT.initial()
    length = 0
    for sequence in range(1, 30_001):
        position = dice.randint(0, length)
        deleted = min(dice.choice([0, 0, 0, 1]), length - position)
        inserted = "語é" if sequence % 3 else "a"
        length += len(inserted) - deleted
        state = TEXT.fold(
            state, "Edited", JSON, edit([position, deleted, inserted]), AUTHOR, sequence
        )
    assert isinstance(state, dict)
    assert state["skipped"] == 0
    text = state["text"]
    assert isinstance(text, str)
    assert len(text) == length > 40_000
