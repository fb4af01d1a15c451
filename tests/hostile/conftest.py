"""One running ledger for all entrances."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Running, started


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A fresh ledger, stopped at the end."""
    yield from started(tmp_path_factory.mktemp("hostile") / "home")
