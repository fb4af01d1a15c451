"""The core gives the same bytes under another version of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.core import governed_logs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 3)


def _other_python() -> str | None:
    """NOCTURNE_SECOND_PYTHON, else another version on the path or where pyenv keeps its own."""
    named = os.environ.get("NOCTURNE_SECOND_PYTHON")
    if named:
        return named
    for minor in (12, 13, 14):
        found = shutil.which(f"python3.{minor}")
        kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/python"))
        for candidate in (found, *map(str, kept)):
            if candidate is not None and _works(candidate):
                return candidate
    return None


def _works(python: str) -> bool:
    done = subprocess.run([python, "-c", "import venv"], capture_output=True, timeout=60)
    return done.returncode == 0


def test_another_version_of_python_gives_the_same_bytes(tmp_path: Path) -> None:
    other = _other_python()
    if other is None:
        pytest.skip("no second Python: install python3.12 or name one in NOCTURNE_SECOND_PYTHON")
    environment = tmp_path / "environment"
    uv = Path(sys.executable).with_name("uv")
    python = environment / "bin" / "python"
    pins = ROOT / "requirements" / "runtime.lock"
    for command in (
        [uv, "venv", "-q", "--no-project", "--python", other, environment],
        [uv, "pip", "install", "-q", "--python", python, "--require-hashes", "-r", pins],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    for seed, hash_seed in zip(SEEDS, ("0", "1", "random"), strict=True):
        done = subprocess.run(
            [python, "-m", "tests.unit.core.governed_logs", str(seed)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(ROOT / "services"), str(ROOT))),
                "PYTHONHASHSEED": hash_seed,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == governed_logs.digest(seed), f"{other}, seed {seed}"
