"""The benchmark command works and writes what its guide says; its figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nocturne.embedded.services import VALIDATORS_DEFAULT

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_the_benchmark_writes_the_metrics_that_its_guide_lists(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "--runs", "1", "--seconds", "2", "--rate", "400"),
            *("--sessions", "20", "--results", str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = json.loads((tmp_path / "latest.json").read_text())
    assert set(result) == {"commit", "machine", "metrics"}
    names = {
        f"throughput.n{VALIDATORS_DEFAULT}.single",
        f"latency.n{VALIDATORS_DEFAULT}.light.p50",
        f"latency.n{VALIDATORS_DEFAULT}.half.p99",
        f"cpu_us_per_event.n{VALIDATORS_DEFAULT}.consensus-0",
        f"memory.n{VALIDATORS_DEFAULT}.pss",
        f"killed.n{VALIDATORS_DEFAULT}.slowest",
        "up.ready",
    }
    idle = {name: one for name, one in result["metrics"].items() if name.startswith("idle.")}
    assert f"idle.n{VALIDATORS_DEFAULT}.validators" in idle
    assert names <= set(result["metrics"])
    for name, metric in result["metrics"].items():
        assert set(metric) == {"value", "unit", "runs"}
        # A process that does nothing may use less than what the kernel counts.
        assert metric["value"] > 0 or name in idle
    assert (tmp_path / "latency.svg").read_text().startswith("<svg")
