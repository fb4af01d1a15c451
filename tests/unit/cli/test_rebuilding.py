"""rebuild: what it says of a report, a difference, a refusal."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.cli.memory_ledger import Shell

EQUAL: dict[str, Any] = {
    "outcome": "swapped",
    "equal": True,
    "wentOnFrom": None,
    "height": 120,
    "blocks": 120,
    "events": 5000,
    "seconds": 2.5,
    "attempts": 1,
    "commitsHeldMs": 31.2,
    "readersHeldMs": 4.1,
    "kept": None,
    "differences": [],
    "notCompared": [],
}
DIFFERENCES = [
    {
        "table": "events",
        "altered": 1,
        "missing": 2,
        "extra": 0,
        "fault": None,
        "first": [
            {"key": "session=a/1, sequence=3", "what": "altered", "columns": ["header"]},
            {"key": "session=a/1, sequence=4", "what": "missing", "columns": []},
        ],
    },
    {
        "table": "receipts",
        "altered": 0,
        "missing": 0,
        "extra": 0,
        "fault": "there is no such table",
        "first": [],
    },
]
PROGRESS = {
    "progress": {
        "stage": "building",
        "height": 60,
        "total": 120,
        "events": 2500,
        "eventsPerSecond": 2000.0,
        "etaSeconds": 1.2,
    }
}
NAMED = "events: 1 altered, 2 missing (session=a/1, sequence=3: header; session=a/1, sequence=4)"


def test_an_equal_one_is_one_sentence_with_its_costs(shell: Shell) -> None:
    shell.machine.rebuild_says = [PROGRESS, {"report": EQUAL}]
    assert shell.run("rebuild", "--keep-old", "--fresh") == 0
    assert shell.machine.asked == ["rebuild --keep-old --fresh"]
    assert "✓ rebuilt through block 120: equal to the live one, and live now" in shell.out
    assert "5 000 events in 2.5 s, 2 000/s  commits held 31 ms, readers 4 ms" in shell.out


def test_json_is_the_report(shell: Shell) -> None:
    shell.machine.rebuild_says = [PROGRESS, {"report": EQUAL}]
    assert shell.json("rebuild") == EQUAL


def test_a_difference_is_named_and_ends_with_1(shell: Shell) -> None:
    report = {**EQUAL, "outcome": "differs", "equal": False, "differences": DIFFERENCES}
    shell.machine.rebuild_says = [{"report": report}]
    shell.machine.rebuild_code = 1
    assert shell.run("rebuild") == 1
    assert "'nocturne rebuild --replace' puts the rebuilt one in its place" in shell.err
    assert NAMED in shell.err
    assert "receipts: there is no such table" in shell.err


def test_a_replaced_one_says_what_was_wrong(shell: Shell) -> None:
    report = {**EQUAL, "outcome": "replaced", "equal": False, "differences": DIFFERENCES}
    shell.machine.rebuild_says = [{"report": {**report, "wentOnFrom": 40, "kept": "old_1"}}]
    assert shell.run("rebuild", "--replace") == 0
    assert "going on from block 40: replaced the live one, and live now" in shell.out
    assert f"was {NAMED}" in shell.out
    assert "what was live is kept as old_1" in shell.out


@pytest.mark.parametrize("code, told", [(1, 1), (2, 2), (3, 3), (130, 130), (143, 130), (-9, 1)])
def test_a_failure_keeps_its_exit_code(shell: Shell, code: int, told: int) -> None:
    shell.machine.rebuild_says = [{"failure": "another rebuild of this database runs"}]
    shell.machine.rebuild_code = code
    assert shell.run("rebuild") == told
    expected = "goes on where it was" if told == 130 else "another rebuild of this database runs"
    assert expected in shell.err
