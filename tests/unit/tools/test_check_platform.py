"""A platform without wheels is told so in one sentence, and the list of platforms is true."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools.check_platform import ANYWAY, why_not

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "found",
    [
        ("Linux", "x86_64", "glibc", "2.28"),
        ("Linux", "x86_64", "glibc", "2.36"),
        ("Linux", "AMD64", "glibc", "3.0"),
        ("Darwin", "arm64", "", ""),
    ],
)
def test_where_every_package_has_a_wheel_nothing_is_said(found: tuple[str, str, str, str]) -> None:
    assert why_not(*found) == ""


@pytest.mark.parametrize(
    "found, named",
    [
        (("Linux", "x86_64", "", ""), "Linux without glibc"),
        (("Linux", "x86_64", "glibc", "2.17"), "glibc 2.17"),
        (("Linux", "aarch64", "glibc", "2.36"), "Linux on aarch64"),
        (("Darwin", "x86_64", "", ""), "Darwin on x86_64"),
        (("Windows", "AMD64", "", ""), "Windows on x86_64"),
        (("FreeBSD", "riscv64", "", ""), "FreeBSD on riscv64"),
    ],
)
def test_elsewhere_one_sentence_names_the_platform_and_the_ways_out(
    found: tuple[str, str, str, str], named: str
) -> None:
    sentence = why_not(*found)
    assert named in sentence
    assert ANYWAY in sentence
    assert "\n" not in sentence


def test_setup_stops_with_the_sentence_where_there_are_no_wheels(tmp_path: Path) -> None:
    """A Python that says it is on another system; nothing is installed or left."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nexec {sys.executable} -c \''
        'import platform, runpy, sys; platform.system = lambda: "Plan9"; '
        'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")\' "$@"\n'
    )
    python.chmod(0o755)
    venv = tmp_path / "venv"
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}", f"VENV={venv}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != ANYWAY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "this is Plan9 on" in done.stderr
    assert not venv.exists()
