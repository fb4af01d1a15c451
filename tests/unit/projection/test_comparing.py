"""What is compared, and how what was found is put together; the SQL runs in test_rebuild.py."""

from __future__ import annotations

import pytest

from nocturne.projection.comparing import (
    COMPARED,
    NAMED_MAX,
    Comparison,
    Growth,
    Phase,
    RowDifference,
    TableDifference,
    statement_of,
)


def row(number: int) -> RowDifference:
    return RowDifference(f"height={number}", "altered", ("time",))


def test_what_was_found_early_and_late_is_one_line_for_each_table() -> None:
    early = Comparison(
        (TableDifference("blocks", altered=3, first=(row(1), row(2), row(3))),), ("blocks.new",)
    )
    late = Comparison(
        (
            TableDifference("events", missing=1),
            TableDifference("blocks", altered=4, extra=1, first=tuple(map(row, range(3, 7)))),
        ),
        ("blocks.new", "events.new"),
    )
    both = early.then(late)
    assert [one.table for one in both.differences] == ["blocks", "events"]
    blocks = both.differences[0]
    assert (blocks.altered, blocks.missing, blocks.extra) == (7, 0, 1)
    assert blocks.first == tuple(map(row, range(1, NAMED_MAX + 1)))
    assert both.skipped == ("blocks.new", "events.new")


def test_a_fault_of_a_table_stays() -> None:
    gone = Comparison((TableDifference("events", fault="there is no such table"),))
    counted = Comparison((TableDifference("events", altered=1),))
    for both in (gone.then(counted), counted.then(gone)):
        assert both.differences == (
            TableDifference("events", altered=1, fault="there is no such table"),
        )


@pytest.mark.parametrize("one", COMPARED, ids=lambda one: one.table)
@pytest.mark.parametrize("phase", Phase)
def test_each_row_belongs_to_one_phase(one: object, phase: Phase) -> None:
    compared = next(known for known in COMPARED if known is one)
    text = statement_of(compared, (*compared.key, "x"), "a", "b", phase).as_string()
    bounds = {Phase.BULK: "<= %(through)s", Phase.REST: "> %(through)s"}
    if compared.growth is Growth.WHOLE:
        assert "through" not in text
    else:
        assert bounds[phase] in text
    if compared.growth is Growth.BY_HEIGHT:
        assert text.count(bounds[phase]) == 2
    assert f'"a"."{compared.table}"' in text
    assert f'"b"."{compared.table}"' in text
