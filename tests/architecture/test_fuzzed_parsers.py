"""No parser without a fuzzer: `tests/hostile/parsers.py` names every `decode…` and `parse…`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.parsers import PARSERS

PACKAGE = Path(__file__).resolve().parents[2] / "services" / "nocturne"
GENERATED = "wire"
VERBS = ("decode", "parse")


def _parsers_of(path: Path) -> Iterator[str]:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module}.{node.name}"
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{module}.{node.name}.{inner.name}"


def test_every_public_decoder_and_parser_has_a_fuzzer() -> None:
    found = {
        name
        for path in sorted(PACKAGE.rglob("*.py"))
        if GENERATED not in path.relative_to(PACKAGE).parts
        for name in _parsers_of(path)
        if name.rpartition(".")[2].partition("_")[0] in VERBS
    }
    assert len(found) > 20
    missing = sorted(found - {one.name for one in PARSERS})
    assert missing == [], "add them to tests/hostile/parsers.py"


def test_each_fuzzer_has_a_name_of_its_own() -> None:
    names = [one.name for one in PARSERS]
    assert sorted(set(names)) == sorted(names)
