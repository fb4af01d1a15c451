"""Real input for tests, which is not part of this repository.

`NOCTURNE_DATA` names the folder; without it, it is `shared/data` beside the repository. A test
whose file is not there is skipped, and fails when `REQUIRE_DATA` is 1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_file(name: str) -> Path:
    """The file of this name."""
    path = Path(os.environ.get("NOCTURNE_DATA", BESIDE)) / name
    if path.is_file():
        return path
    what = f"{name} is not in the folder that NOCTURNE_DATA names, nor in shared/data"
    if os.environ.get("REQUIRE_DATA") == "1":
        pytest.fail(what)
    pytest.skip(what)
