"""The built wheel, alone in a clean environment, carries all it needs and runs a ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.wheels import ROOT, fresh_environment, run
from tests.machines import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that holds the pinned dependencies and the wheel."""
    return fresh_environment(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_carries_its_schemas_and_migrations(installed: Path, tmp_path: Path) -> None:
    listing = run(
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
    run(nocturne, "up", "--detach", "--home", home, cwd=tmp_path)
    try:

        def all_serve() -> bool:
            # A ledger is ready before the last of its validators is.
            status = json.loads(run(nocturne, "status", "--json", "--home", home, cwd=tmp_path))
            names = {one["name"] for one in status["services"]}
            assert {"command", "consensus-0", "signing", "projection", "query"} <= names
            return all(one["health"] == "healthy" for one in status["services"])

        until(all_serve, 60, "every service serves")
        run(nocturne, "submit", "first", "Noted", '{"n":1}', "--home", home, cwd=tmp_path)
        export = tmp_path / "first.export"
        run(nocturne, "export", "first", export, "--home", home, cwd=tmp_path)
        run(nocturne, "verify", export, "--home", home, cwd=tmp_path)
    finally:
        run(nocturne, "down", "--home", home, cwd=tmp_path)
