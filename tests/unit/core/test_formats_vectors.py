"""The golden vectors are what the code writes: no format changes without a file that shows it."""

from __future__ import annotations

import json

import pytest
from tests.vectors import generate


@pytest.mark.parametrize("name", generate.vectors())
def test_the_vectors_are_pinned(name: str) -> None:
    pinned = json.loads((generate.FOLDER / name).read_text(encoding="utf-8"))
    assert json.loads(json.dumps(generate.vectors()[name]())) == pinned


def test_the_generator_finds_nothing_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().err == ""
