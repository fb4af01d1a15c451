"""The repository keeps what its rules promise about itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Written in two parts, so that this file does not find itself.
FORBIDDEN = re.compile(
    r"/wor" + r"k/|/ro" + r"ot/|p[y]pi\.org|registry\.np" + r"mjs|proxy\.go" + r"lang"
)
TEXT_BYTES_MAX = 2_000_000
REQUIRED = ("services", "proto", "tests", "pyproject.toml", "README.md", "docs/ARCHITECTURE.md")


def _files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout
    if not listed:
        pytest.skip("not a git checkout: the list of files is git's")
    return [ROOT / name.decode() for name in listed.split(b"\0") if name]


def test_no_file_names_a_registry_host_or_a_path_of_one_machine() -> None:
    found = []
    for path in _files():
        if not path.is_file() or path.stat().st_size > TEXT_BYTES_MAX:
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{path.relative_to(ROOT)}: {one}" for one in FORBIDDEN.findall(text)]
    assert found == []


@pytest.mark.parametrize("name", REQUIRED)
def test_the_top_level_has_what_the_mission_asks_for(name: str) -> None:
    assert (ROOT / name).exists()


def test_every_file_that_the_architecture_page_names_exists() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text()
    named = set(
        re.findall(r"`((?:core|runtime|tests|docs|audit|clients|proto|embedded)/[^`*]+)`", page)
    )
    packages = ("core", "runtime", "audit", "embedded")
    missing = [
        name
        for name in sorted(named)
        if not (ROOT / ("services/nocturne" if name.startswith(packages) else ".") / name).exists()
    ]
    assert missing == []
