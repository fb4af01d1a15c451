"""Prometheus' own program accepts the rules, and each alert fires for what it is meant for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from tests.go_tools import PROMTOOL
from tests.metrics import registries

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "grafana/prometheus"
RULES = Path(__file__).with_name("alerts_test.yml")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def promtool() -> Path:
    """The program."""
    return PROMTOOL.program()


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
