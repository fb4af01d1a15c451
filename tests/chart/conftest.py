"""Renderings that several tests look at, made once."""

from __future__ import annotations

import pytest
from tests import helm
from tests.chart.cases import rendered
from tests.helm import Object

BUILD_SECONDS_MAX = 1000


@pytest.fixture(scope="session", autouse=True)
def _helm() -> None:
    """Every test here needs Helm; without it each is skipped, with the way to enable it."""
    helm.program()


@pytest.fixture
def trial() -> tuple[Object, ...]:
    """The chart as it stands."""
    return rendered("trial")


@pytest.fixture
def production() -> tuple[Object, ...]:
    """The example for production."""
    return rendered("production")
