"""Worlds by hand: each file of tests/simulation/scenarios is a property, and holds."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from tests.simulation import scenarios
from tests.simulation.scenario import Scenario, Scripted

NAMES = sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))
SEEDS = 10
"""Of the messages' delays and the liars' lies."""


@pytest.mark.parametrize("name", NAMES)
def test_property(name: str) -> None:
    assert Scripted(scenario_of(name), 1).check() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_property_whatever_the_delays_and_lies(name: str) -> None:
    for seed in range(2, SEEDS + 1):
        assert Scripted(scenario_of(name), seed).check() == [], f"seed {seed}"


def scenario_of(name: str) -> Scenario:
    found = importlib.import_module(f"{scenarios.__name__}.{name}").SCENARIO
    assert isinstance(found, Scenario)
    return found
