"""The example of a kind of one's own: what it promises, tested as any kind should be.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.kinds import ENTRY_POINT_GROUP, Violation
from nocturne.core.kinds.guard import guarded
from nocturne.core.strict_json import canonical_json

FOLDER = Path(__file__).parents[3] / "examples" / "kind-inventory"
JSON = "application/json"
AUTHOR = bytes(32)

movements = st.tuples(
    st.sampled_from(["Received", "Shipped", "Shipped", "Counted"]),
    st.fixed_dictionaries(
        {
            "item": st.sampled_from(["bolt", "nut", "a b"]),
            "quantity": st.one_of(st.integers(-1, 9), st.sampled_from([True, 1.5, 10**9])),
        }
    ),
)


def load() -> ModuleType:
    file = FOLDER / "nocturne_kind_inventory.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks for its module there.
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


INVENTORY = guarded(load().INVENTORY)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(movements, max_size=30))
def test_stock_is_what_came_less_what_went_and_never_below_zero(
    told: list[tuple[str, dict[str, Any]]],
) -> None:
    items: dict[bytes, bytes] = {}
    state, stock = INVENTORY.initial(), {}
    for sequence, (event_type, value) in enumerate(told, 1):
        event = (event_type, JSON, json.dumps(value).encode(), AUTHOR, sequence)
        item, quantity = value["item"], value["quantity"]
        good = type(quantity) is int and quantity > 0 and item != "a b" and event_type != "Counted"
        moved = 0 if not good else quantity if event_type == "Received" else -quantity
        answer = INVENTORY.apply(items, *event)
        before = copy.deepcopy(state)
        if not good:
            assert answer == Violation("inventory.form")
            assert INVENTORY.fold(state, *event) == before
        elif stock.get(item, 0) + moved < 0:
            assert answer == Violation("inventory.in_stock")
        else:
            assert not isinstance(answer, Violation)
            after = INVENTORY.fold(state, *event)
            assert state == before
            state = after
            stock[item] = stock.get(item, 0) + moved
            for key, left in answer.items():
                if left is None:
                    items.pop(key)
                else:
                    items[key] = left
        shown = {name: count for name, count in stock.items() if count}
        assert state == {"stock": shown}
        assert sorted(int.from_bytes(left, "big") for left in items.values()) == sorted(
            shown.values()
        )
    canonical_json(state)


def test_stock_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    monkeypatch.setattr(module, "STOCK_MAX", 4)
    event = ("Received", JSON, b'{"item":"bolt","quantity":5}', AUTHOR, 1)
    assert module.INVENTORY.apply({}, *event) == Violation("inventory.stock_max")


def test_the_package_offers_it_where_a_ledger_looks() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][ENTRY_POINT_GROUP] == {
        "inventory": "nocturne_kind_inventory:INVENTORY"
    }
