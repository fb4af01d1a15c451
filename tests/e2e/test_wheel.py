"""The built wheel, alone in a clean environment, carries all it needs and runs a ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def _run(*argv: str | Path, cwd: Path, seconds: float = 180.0) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        # Nothing of this checkout may leak in.
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "NOCTURNE_HOME")
    }
    done = subprocess.run(
        [str(one) for one in argv],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that holds the pinned dependencies and the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=ROOT)
    wheel = next((folder / "dist").glob("*.whl"))
    _run(UV, "venv", "--python", sys.executable, folder / "env", cwd=folder)
    python = folder / "env/bin/python"
    lock = ROOT / "requirements/dev.lock"
    _run(UV, "pip", "install", "--python", python, "--require-hashes", "-r", lock, cwd=folder)
    _run(UV, "pip", "install", "--python", python, "--no-deps", wheel, cwd=folder)
    return folder / "env/bin"


def test_the_wheel_carries_its_schemas_and_migrations(installed: Path, tmp_path: Path) -> None:
    listing = _run(
        installed / "python",
        "-c",
        "import importlib.resources as r, json, nocturne;"
        "from nocturne.core.schemas import SCHEMAS;"
        "print(json.dumps({'where': nocturne.__file__, 'schemas': sorted(SCHEMAS),"
        "'avsc': sorted(p.name for p in r.files('nocturne.wire.schemas').iterdir()),"
        "'sql': sorted(p.name for p in r.files('nocturne.projection.migrations').iterdir())}))",
        cwd=tmp_path,
    )
    found = json.loads(listing)
    assert str(installed.parent) in found["where"]
    sources = {path.stem for path in (ROOT / "proto/nocturne/ledger/v1").glob("*.avsc")}
    assert sources == set(found["schemas"])
    assert {f"{name}.avsc" for name in sources} <= set(found["avsc"])
    assert any(name.endswith(".sql") for name in found["sql"])


def test_the_wheel_starts_every_service_and_takes_a_command(
    installed: Path, tmp_path: Path
) -> None:
    nocturne = installed / "nocturne"
    home = tmp_path / "home"
    _run(nocturne, "up", "--detach", "--home", home, cwd=tmp_path)
    try:
        status = json.loads(_run(nocturne, "status", "--json", "--home", home, cwd=tmp_path))
        names = {one["name"] for one in status["services"]}
        assert {"command", "consensus-0", "signing", "projection", "query"} <= names
        assert all(one["health"] == "healthy" for one in status["services"])
        _run(nocturne, "submit", "first", "Noted", '{"n":1}', "--home", home, cwd=tmp_path)
        export = tmp_path / "first.export"
        _run(nocturne, "export", "first", export, "--home", home, cwd=tmp_path)
        _run(nocturne, "verify", export, "--home", home, cwd=tmp_path)
    finally:
        _run(nocturne, "down", "--home", home, cwd=tmp_path)
