"""Clean environments that hold the pinned dependencies and wheels built here, nothing of this
checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
SECONDS_MAX = 180.0


def clean_environment(**settings: str) -> dict[str, str]:
    """The process's environment without what would let this checkout leak in."""
    leaks = ("PYTHONPATH", "VIRTUAL_ENV", "NOCTURNE_HOME")
    return {name: value for name, value in os.environ.items() if name not in leaks} | settings


def run(*argv: str | Path, cwd: Path, seconds: float = SECONDS_MAX) -> str:
    """What a command prints; it must end with 0."""
    done = subprocess.run(
        [str(one) for one in argv],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def fresh_environment(folder: Path) -> Path:
    """Make an environment in `folder` with the wheel of this checkout; its `bin` folder."""
    wheel = build_wheel(ROOT, folder / "dist")
    run(UV, "venv", "--python", sys.executable, folder / "env", cwd=folder)
    python = folder / "env/bin/python"
    lock = ROOT / "requirements/dev.lock"
    run(UV, "pip", "install", "--python", python, "--require-hashes", "-r", lock, cwd=folder)
    run(UV, "pip", "install", "--python", python, "--no-deps", wheel, cwd=folder)
    return folder / "env/bin"


def build_wheel(project: Path, into: Path) -> Path:
    """The wheel of a project, built without its own environment: its tools are pinned here."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into, cwd=project)
    return next(into.glob("*.whl"))
