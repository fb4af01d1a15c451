"""What several integration tests start: a schema registry of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Confluent's API of a real registry that has nothing yet, one for each module."""
    from tests.apicurio import running

    with running(tmp_path_factory.mktemp("registry")) as url:
        yield url
