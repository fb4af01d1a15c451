"""Prometheus' own program accepts the rules, and each alert fires for what it is meant for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from tests.metrics import registries

from nocturne.embedded import downloads

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "grafana/prometheus"
RULES = Path(__file__).with_name("alerts_test.yml")
VERSION = "v0.305.0"
"""Of the Go module: Prometheus 3.5."""
MODULE = "github.com/prometheus/prometheus"
BUILD_SECONDS_MAX = 1500.0
"""Once; it compiles about 1 300 packages."""

pytestmark = [
    pytest.mark.integration,
    # Building it takes minutes the first time.
    pytest.mark.long,
    pytest.mark.timeout(BUILD_SECONDS_MAX + 60),
    pytest.mark.skipif(
        shutil.which("go") is None,
        reason="needs Go 1.24 or later: install requirements/go.lock, or Go itself",
    ),
]


@pytest.fixture(scope="module")
def promtool() -> Path:
    """The program; built once, kept in NOCTURNE_CACHE."""
    kept = downloads.cache_folder(os.environ) / f"promtool-{VERSION}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            # `go install` refuses a module that replaces others; as a dependency it is as it is.
            built = Path(scratch) / "promtool"
            for line in (
                ["go", "mod", "init", "promtool"],
                ["go", "get", f"{MODULE}/cmd/promtool@{VERSION}"],
                ["go", "build", "-o", str(built), f"{MODULE}/cmd/promtool"],
            ):
                subprocess.run(line, cwd=scratch, check=True, timeout=BUILD_SECONDS_MAX)
            built.replace(kept)
    return kept


def ran(program: Path, *arguments: str, said: str = "") -> str:
    done = subprocess.run(
        [program, *arguments], input=said, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_and_the_configuration_are_prometheus_own(promtool: Path) -> None:
    assert "SUCCESS" in ran(promtool, "check", "rules", str(PROMETHEUS / "alerts.yml"))
    ran(promtool, "check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))


def test_each_alert_fires_when_it_must_and_not_before(promtool: Path, tmp_path: Path) -> None:
    cases = tmp_path / "alerts_test.yml"
    cases.write_text(RULES.read_text().replace("ALERTS", str(PROMETHEUS / "alerts.yml"), 2))
    ran(promtool, "test", "rules", str(cases))


def test_every_metric_is_named_as_prometheus_linter_wants_it(promtool: Path) -> None:
    for registry in registries().values():
        assert ran(promtool, "check", "metrics", said=generate_latest(registry).decode()) == ""
