"""Renderings that several tests look at, made once."""

from __future__ import annotations

import pytest
from tests.chart.cases import rendered
from tests.go_tools import HELM
from tests.helm import Object


@pytest.fixture(scope="session", autouse=True)
def _helm() -> None:
    """Every test here needs Helm; without it each is skipped, with the way to enable it."""
    HELM.program()


@pytest.fixture
def trial() -> tuple[Object, ...]:
    """The chart as it stands."""
    return rendered("trial")


@pytest.fixture
def production() -> tuple[Object, ...]:
    """The example for production."""
    return rendered("production")
