"""Recorded writings: one record a transaction, and the text that they make."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.identifiers import AuthorId, SessionId
from nocturne.core.kinds.text import TEXT
from nocturne.imports import text
from nocturne.imports.records import Record, SourceFault

SESSION = SessionId("text/a")
AUTHOR = AuthorId(bytes(32))


def read(value: Any) -> list[Record]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return list(text.records(text.parse_writing(data), SESSION))


def test_one_record_a_transaction_with_its_time() -> None:
    found = read(
        {
            "startContent": "",
            "endContent": "Night",
            "txns": [
                {"patches": [[0, 0, "Nigth"], [3, 2, "ht"]], "time": "2026-11-21T09:00:00Z"},
                {"patches": []},
            ],
        }
    )
    assert [(r.event_type, r.payload, r.occurred_at, r.place) for r in found] == [
        (
            "TextPatched",
            b'{"patches":[[0,0,"Nigth"],[3,2,"ht"]]}',
            1_795_251_600_000,
            "transaction 1",
        ),
        ("TextPatched", b'{"patches":[]}', 0, "transaction 2"),
    ]
    assert text.folded(TEXT, found, AUTHOR) == "Night"


def test_the_text_at_the_beginning_is_the_first_patch() -> None:
    transactions = [{"patches": [[3, 0, "s"]]}]
    found = read({"startContent": "Day", "endContent": "Days", "txns": transactions})
    assert found[0].payload == b'{"patches":[[0,0,"Day"]]}'
    assert text.folded(TEXT, found, AUTHOR) == "Days"


@given(st.data())
def test_the_fold_is_what_writing_by_hand_gives(data: st.DataObject) -> None:
    letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    start = now = data.draw(letters)
    transactions = []
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(now)))
        deleted = data.draw(st.integers(0, len(now) - at))
        inserted = data.draw(letters)
        now = now[:at] + inserted + now[at + deleted :]
        transactions.append({"patches": [[at, deleted, inserted]]})
    found = read({"startContent": start, "endContent": now, "txns": transactions})
    assert text.folded(TEXT, found, AUTHOR) == now


GOOD = {"startContent": "", "endContent": "", "txns": []}


@pytest.mark.parametrize(
    "value, sentence",
    [
        (b"", "RFC 8259"),
        (b"\xff", "UTF-8"),
        (b'{"startContent":"","startContent":""}', "each name once"),
        (b'{"txns":NaN}', "JSON number"),
        (b'{"startContent":"\\ud800","txns":[]}', "surrogates in pairs"),
        (b"[" * 100_000, "at most 8 levels"),
        ([], "a JSON object with startContent"),
        ({**GOOD, "agents": 2}, "got 'agents'"),
        ({**GOOD, "startContent": 1}, "to be texts"),
        ({**GOOD, "endContent": []}, "to be texts"),
        ({**GOOD, "txns": {}}, "a list of transactions"),
        ({**GOOD, "txns": [1]}, "transaction 1: expected an object"),
        ({**GOOD, "txns": [{"patches": []}, {}]}, "transaction 2: expected patches as"),
        ({**GOOD, "txns": [{"patches": [[0, 0]]}]}, "transaction 1: expected patches as"),
        ({**GOOD, "txns": [{"patches": [[0, True, ""]]}]}, "expected patches as"),
        ({**GOOD, "txns": [{"patches": [[-1, 0, ""]]}]}, "expected patches as"),
        ({**GOOD, "txns": [{"patches": [], "parents": [0]}]}, "is it one sequence?"),
        ({**GOOD, "txns": [{"patches": [], "time": "soon"}]}, "transaction 1: time"),
    ],
)
def test_what_is_no_writing_is_one_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(SourceFault) as caught:
        read(value)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400
