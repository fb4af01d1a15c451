"""The golden vectors are what the code writes: no format changes without a file that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.vectors import generate
from tests.vectors.bounds import Bound, bounds

from nocturne.core.commands import decode_command
from nocturne.core.errors import Malformed

READERS: dict[str, Callable[[bytes], object]] = {"command": decode_command}


@pytest.mark.parametrize("name", generate.vectors())
def test_the_vectors_are_pinned(name: str) -> None:
    pinned = json.loads((generate.FOLDER / name).read_text(encoding="utf-8"))
    assert json.loads(json.dumps(generate.vectors()[name]())) == pinned


def test_the_generator_finds_nothing_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bound", list(bounds()), ids=lambda one: f"{one.schema}: {one.name}")
def test_a_record_is_read_up_to_its_bounds(bound: Bound) -> None:
    if bound.is_well_formed:
        READERS[bound.schema](bound.data)
    else:
        with pytest.raises(Malformed):
            READERS[bound.schema](bound.data)
