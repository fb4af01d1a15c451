"""Programs that are built from their Go modules at a pinned version, once, and kept in the cache.

Only Go is needed (`requirements/go.lock` has it as a wheel); Go's own checksum database stands for
the modules. Without Go and without a built one, the tests that ask for it are skipped and say so.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from nocturne.embedded.downloads import cache_folder

BUILD_SECONDS_MAX: Final = 900
USUAL_PLACE: Final = "/usr/local/go/bin"


@dataclass(frozen=True, slots=True)
class GoTool:
    """One program: the module that has it, its version, and the name that Go gives it."""

    module: str
    version: str
    name: str

    def program(self) -> Path:
        """The program; built when it is not there yet. Skips the test when it cannot be."""
        cache = cache_folder(os.environ)
        label = f"{self.module.split('/')[2]}-{self.version}"
        built = cache / label / self.name
        if built.exists():
            return built
        go = shutil.which("go") or shutil.which("go", path=USUAL_PLACE)
        if go is None:
            pytest.skip(f"needs {label}, built with Go: install requirements/go.lock, or Go itself")
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{label}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not built.exists():
                self._build(go, built)
        return built

    def _build(self, go: str, built: Path) -> None:
        with tempfile.TemporaryDirectory(dir=built.parent.parent) as folder:
            subprocess.run(
                [go, "install", f"{self.module}@v{self.version}"],
                env={**os.environ, "GOBIN": folder, "GOFLAGS": "-modcacherw"},
                check=True,
                timeout=BUILD_SECONDS_MAX,
            )
            built.parent.mkdir(exist_ok=True)
            (Path(folder) / self.name).replace(built)


COMPOSE_GO: Final = GoTool("github.com/compose-spec/compose-go/v2/cmd", "2.16.2", "cmd")
"""Reads a compose file as `docker compose` does, with the same code, and prints what it means."""
VERSITYGW: Final = GoTool("github.com/versity/versitygw/cmd/versitygw", "1.8.0", "versitygw")
"""An S3 store with Object Lock, as its container image has it."""
