"""The doors tell from the beginning what they count: it can be watched before it happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.certificates import Authority

from nocturne.runtime.guard import Guard
from nocturne.runtime.security import ServerTls
from nocturne.runtime.telemetry import Metrics


@pytest.mark.parametrize("outcome", ["taken", "refused"])
def test_files_that_were_met_are_counted_from_nought(tmp_path: Path, outcome: str) -> None:
    metrics = Metrics("command")
    access = tmp_path / "callers.json"
    access.write_text(json.dumps({"principals": [{"name": "shop", "roles": ["read"]}]}))
    Guard(access, metrics)
    made = Authority().make("localhost")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(made.certificate)
    key.write_bytes(made.key)
    ServerTls(certificate, key, None, metrics)
    for name in ("access_reads", "tls_reads"):
        value = metrics.registry.get_sample_value(
            f"nocturne_command_{name}_total", {"outcome": outcome}
        )
        assert value == 0.0, name
