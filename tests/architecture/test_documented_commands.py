"""Every command line in the documents is run by a test; here is which test runs which document."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.console_blocks import PROMPT, command_lines

ROOT = Path(__file__).resolve().parents[2]
RUN_BY = {
    "docs/guides/consuming.md": "tests/integration/test_consumers.py",
    "README.md": "tests/e2e/test_readme.py",
    "docs/guides/cli.md": "tests/integration/test_cli.py",
    "docs/runbooks/rebuild.md": "tests/integration/test_cli.py",
    "docs/guides/members.md": "tests/integration/test_authors.py",
    "docs/guides/importing.md": "tests/integration/test_imports.py",
    "docs/guides/benchmarks.md": "tests/e2e/test_bench.py",
    "docs/guides/kinds.md": "tests/e2e/test_kind_package.py",
}


def test_every_document_with_command_lines_names_the_test_that_runs_them() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    with_commands = {
        str(path.relative_to(ROOT))
        for path in documents
        if any(mark in path.read_text() for mark in ("```console", "```sh", f"\n{PROMPT}"))
    }
    assert with_commands == set(RUN_BY)
    assert all((ROOT / test).exists() for test in RUN_BY.values())


def test_make_bench_runs_the_module_that_its_test_runs() -> None:
    lines = command_lines((ROOT / "docs/guides/benchmarks.md").read_text())
    assert [line.text for line in lines] == ["make bench"]
    plan = subprocess.run(
        ["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "-m bench" in plan
