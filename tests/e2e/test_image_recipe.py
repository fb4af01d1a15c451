"""The build stage of the image's recipe, run without an engine: its commands, in a folder.

What `COPY` takes from the context is put there, `RUN` is given to a shell, with the recipe's own
folders moved below a folder of the test. So the pinned packages install by hash as wheels alone,
and the wheel is built of what the ignore file lets through. What the base images have, and the
final stage, is not shown: no engine builds the image here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests import dockerfile
from tests.dockerfile import ROOT, Stage

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]

SECONDS_MAX = 500
MODULES = ("command", "consensus", "signing", "projection", "query")
JOBS = ("deploy.genesis", "deploy.topics", "deploy.database", "deploy.secrets", "runtime.probe")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the final stage copies: the folder that is /opt/nocturne there."""
    folder = tmp_path_factory.mktemp("recipe")
    build(dockerfile.read().stages[0], folder)
    return folder / "opt/nocturne"


def build(stage: Stage, folder: Path) -> None:
    """Follow the stage's instructions."""
    places = {"/build": str(folder / "build"), "/opt/nocturne": str(folder / "opt/nocturne")}
    (folder / "build").mkdir()
    (folder / "opt").mkdir()
    # The base image's Python, first on the path under the name that the recipe uses.
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(Path(sys.executable).resolve())
    environment = {**os.environ, **stage.environment, "PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    for one in stage.instructions:
        match one.name:
            case "COPY":
                *sources, target = one.words
                for source in sources:
                    copy(ROOT / source, folder / "build" / target)
            case "RUN":
                command = one.rest
                for place, here in places.items():
                    command = re.sub(rf"(?<![\w./-]){place}(?![\w.-])", here, command)
                done = subprocess.run(
                    ["sh", "-ec", command],
                    cwd=folder / "build",
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=SECONDS_MAX,
                    check=False,
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"[-4000:]
            case "ENV":
                pass
            case "WORKDIR":
                assert one.rest == "/build"
            case other:
                raise AssertionError(f"no rule for {other}")


def copy(source: Path, target: Path) -> None:
    """As COPY does: a folder's contents, or a file into a folder."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyo")
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def run(built: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(built / "bin/python"), *arguments],
        cwd="/",
        env={"PATH": f"{built / 'bin'}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_service_and_job_is_in_the_image_and_asks_for_its_settings(built: Path) -> None:
    for name in MODULES:
        done = run(built, "-m", f"nocturne.{name}")
        assert done.returncode == 2, done.stderr
        assert "NOCTURNE_GENESIS_FILE: Field required" in done.stderr
    for name in JOBS:
        done = run(built, "-m", f"nocturne.{name}")
        assert done.returncode in (1, 2), done.stderr
        assert "Traceback" not in done.stderr


def test_the_image_has_the_locked_packages_and_no_other(built: Path) -> None:
    listing = run(
        built,
        "-c",
        "from importlib.metadata import distributions as d;"
        "print('\\n'.join(sorted(f'{x.name.lower()}=={x.version}' for x in d())))",
    ).stdout.replace("_", "-")
    locked = {
        line.split()[0].rstrip("\\").strip()
        for line in (ROOT / "requirements/runtime.lock").read_text().splitlines()
        if "==" in line and not line.startswith(("#", " "))
    }
    found = {line for line in listing.split() if not line.startswith("nocturne==")}
    assert found == locked


def test_nothing_of_it_can_install_or_compile_anything(built: Path) -> None:
    names = {path.name for path in (built / "bin").iterdir()}
    assert not [name for name in names if name.startswith(("pip", "easy_install", "uv"))]
    assert run(built, "-c", "import pip").returncode == 1
    assert not list(built.rglob("*.c"))


def test_the_command_of_the_image_alone_is_the_help_of_the_command_line(built: Path) -> None:
    program, *arguments = dockerfile.read().final.command_of("CMD")
    done = run(built, str(built / "bin" / program), *arguments)
    assert done.returncode == 0
    assert "submit" in done.stdout
