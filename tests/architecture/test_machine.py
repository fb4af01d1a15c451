"""The machine that certifies stays small and pure: docs/spec/quorum.md §2."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nocturne.consensus.quorum

LINES_MAX = 2_000
PACKAGE = nocturne.consensus.quorum.__name__
FILES = sorted(Path(nocturne.consensus.quorum.__path__[0]).rglob("*.py"))
OURS = (PACKAGE, "nocturne.core")
IMPURE = {
    "asyncio",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
}
"""Of the standard library: clocks, dice, files, network, processes, threads."""


def imported(source: str) -> Iterator[str]:
    """The modules that a file names in its imports, wherever they stand in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read here"
            assert node.module is not None
            if node.module == "nocturne":
                yield from (f"nocturne.{alias.name}" for alias in node.names)
            else:
                yield node.module


def is_allowed(name: str) -> bool:
    """Whether the machine may import it."""
    if any(name == one or name.startswith(f"{one}.") for one in OURS):
        return True
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top not in IMPURE


def test_the_machine_has_less_than_two_thousand_lines() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in FILES}
    assert {"machine.py", "messages.py", "tally.py"} <= lines.keys()
    assert sum(lines.values()) < LINES_MAX, lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_machine_imports_the_core_itself_and_what_is_pure_of_the_standard_library(
    path: Path,
) -> None:
    assert [one for one in imported(path.read_text()) if not is_allowed(one)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import nacl.bindings",
        "from fastavro import schemaless_reader",
        "from nocturne.consensus import codec",
        "from nocturne import wire",
        "def late() -> None:\n    import time",
        "from nocturne.consensus.quorums import other",
    ],
)
def test_an_import_of_anything_else_is_noticed(line: str) -> None:
    assert not all(is_allowed(one) for one in imported(line))
