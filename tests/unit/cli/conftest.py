"""A shell with an empty home and an empty ledger, for every test of the command line."""

from pathlib import Path

import pytest
from tests.unit.cli.memory_ledger import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run command lines against a ledger in memory: `shell.run("sessions")`."""
    return Shell(tmp_path / "home")
