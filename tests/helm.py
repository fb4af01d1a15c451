"""Helm for tests: built once from its module at a pinned version, then kept in the cache.

`python -m tests.helm` builds it. Only Go is needed (`requirements/go.lock` has it as a wheel);
Go's own checksum database stands for the module. Without Go and without a built one, the tests
that ask for it are skipped and say so.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from nocturne.embedded.downloads import cache_folder

VERSION: Final = "3.22.0"
MODULE: Final = f"helm.sh/helm/v3/cmd/helm@v{VERSION}"
CHART: Final = Path(__file__).resolve().parents[1] / "helm" / "nocturne"
KUBERNETES: Final = "1.34.0"
"""What a chart is rendered for unless a test says otherwise."""
BUILD_SECONDS_MAX: Final = 900
RUN_SECONDS_MAX: Final = 60
WAY_TO_ENABLE: Final = (
    "needs Helm, which is built with Go: install requirements/go.lock, or Go itself"
)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command of Helm ended."""

    code: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        """All of it."""
        return self.output + self.errors


def program() -> Path:
    """The program; built when it is not there yet. Skips the test when it cannot be built."""
    built = cache_folder(os.environ) / f"helm-{VERSION}" / "helm"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        pytest.skip(WAY_TO_ENABLE)
    built.parent.parent.mkdir(parents=True, exist_ok=True)
    with (built.parent.parent / "helm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(go, built)
    return built


def _build(go: str, built: Path) -> None:
    with tempfile.TemporaryDirectory(dir=built.parent.parent) as folder:
        environment = {**os.environ, "GOBIN": folder, "GOFLAGS": "-modcacherw"}
        subprocess.run(
            [go, "install", MODULE], env=environment, check=True, timeout=BUILD_SECONDS_MAX
        )
        built.parent.mkdir(exist_ok=True)
        (Path(folder) / "helm").replace(built)


def run(*arguments: str) -> Done:
    """Run Helm with nothing of the machine's own settings."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [str(program()), *arguments],
            env={"PATH": os.environ["PATH"], "HOME": home, "HELM_CACHE_HOME": home},
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS_MAX,
        )
    return Done(done.returncode, done.stdout, done.stderr)


def template(
    *values: Path,
    settings: Sequence[str] = (),
    release: str = "ledger",
    namespace: str = "audit",
    kubernetes: str = KUBERNETES,
) -> Done:
    """Render the chart as an installation would be."""
    return run(
        "template",
        release,
        str(CHART),
        *_given(values, settings),
        f"--namespace={namespace}",
        f"--kube-version={kubernetes}",
    )


def lint(*values: Path, settings: Sequence[str] = (), kubernetes: str = KUBERNETES) -> Done:
    """What Helm finds to say against the chart with these values."""
    given = _given(values, settings)
    return run("lint", "--strict", str(CHART), *given, f"--kube-version={kubernetes}")


def objects(done: Done) -> list[Object]:
    """The objects of a rendering that went well."""
    assert done.code == 0, done.said
    return [one for one in yaml.safe_load_all(done.output) if one]


def _given(values: Sequence[Path], settings: Sequence[str]) -> list[str]:
    files = [part for path in values for part in ("--values", str(path))]
    return files + [part for one in settings for part in ("--set", one)]


if __name__ == "__main__":
    print(program())
    sys.exit(0)
