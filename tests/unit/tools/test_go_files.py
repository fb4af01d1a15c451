"""Files of a Go module are taken once, and only from the module that was pinned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.go_tools import GoFiles

PINNED = GoFiles("things", "example.org/things", "crds", ("a.yaml",), "1.2.3", "h1:right=")


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that downloads as Go does, each time with a line in `calls`."""
    monkeypatch.setenv("NOCTURNE_CACHE", str(tmp_path / "cache"))
    module = tmp_path / "module"
    (module / "crds").mkdir(parents=True)
    (module / "crds/a.yaml").write_text("a: 1\n")
    (module / "crds/b.yaml").write_text("b: 1\n")
    said = json.dumps({"Dir": str(module), "Sum": PINNED.checksum})
    program = tmp_path / "go"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/calls\necho '{said}'\n")
    program.chmod(0o755)
    return program


def test_the_files_that_were_named_are_taken_once(go: Path) -> None:
    PINNED.make(str(go))
    PINNED.make(str(go))
    assert [one.name for one in PINNED.taken().iterdir()] == ["a.yaml"]
    assert (PINNED.path / "a.yaml").read_text() == "a: 1\n"
    calls = go.with_name("calls").read_text().splitlines()
    assert calls == ["mod download -json example.org/things@v1.2.3"]


def test_a_module_that_is_not_the_pinned_one_leaves_nothing(go: Path) -> None:
    other = replace(PINNED, checksum="h1:another=")
    with pytest.raises(ValueError, match="checksum: expected h1:another=, got h1:right="):
        other.make(str(go))
    assert not other.path.exists()


def test_a_file_that_the_module_lacks_leaves_nothing(go: Path) -> None:
    other = replace(PINNED, files=("a.yaml", "c.yaml"))
    with pytest.raises(FileNotFoundError):
        other.make(str(go))
    assert not other.path.exists()


def test_what_was_not_taken_skips_and_says_what_takes_it(go: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="'make tools' fetches it"):
        PINNED.taken()
