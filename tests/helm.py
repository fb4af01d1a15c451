"""Helm for tests: what a chart renders to, and what Helm finds to say against it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from tests.go_tools import HELM

CHART: Final = Path(__file__).resolve().parents[1] / "helm" / "nocturne"
KUBERNETES: Final = "1.34.0"
"""What a chart is rendered for unless a test says otherwise."""
RUN_SECONDS_MAX: Final = 60

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


def run(*arguments: str) -> Done:
    """Run Helm with nothing of the machine's own settings."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [str(HELM.program()), *arguments],
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
    chart: Path = CHART,
) -> Done:
    """Render the chart as an installation would be."""
    return run(
        "template",
        release,
        str(chart),
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
