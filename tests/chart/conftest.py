"""Renderings that several tests look at, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import helm
from tests.helm import Object


@pytest.fixture(scope="session")
def trial() -> list[Object]:
    """The chart as it stands."""
    return helm.objects(helm.template())


@pytest.fixture(scope="session")
def production() -> list[Object]:
    """The example for production."""
    return helm.objects(helm.template(helm.CHART / "examples" / "production.yaml"))


@pytest.fixture
def values(tmp_path: Path) -> Path:
    """Where a test writes values of its own."""
    return tmp_path / "values.yaml"
