"""Worlds by hand: each file of tests/simulation/scenarios is a property, and holds."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from tests.simulation import scenarios
from tests.simulation.scenario import Scenario, Scripted

NAMES = sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))
SEEDS = 5
"""Of the messages' delays and the liars' lies."""


@pytest.mark.parametrize("name", NAMES)
def test_property(name: str) -> None:
    scenario = importlib.import_module(f"{scenarios.__name__}.{name}").SCENARIO
    assert isinstance(scenario, Scenario)
    for seed in range(1, SEEDS + 1):
        assert Scripted(scenario, seed).check() == [], f"seed {seed}"
