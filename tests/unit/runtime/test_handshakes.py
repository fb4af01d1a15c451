"""What gRPC's own log says of failed handshakes, and this process's own stderr around it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from nocturne.runtime.handshakes import cause_of

WHERE = b"I1126 20:57:56.158965   29794 ssl_transport_security.cc:2563] "
FAILED = WHERE + b"Handshake failed with error SSL_ERROR_SSL: error:1000007d:SSL routines:"


@pytest.mark.parametrize(
    "line, name",
    [
        (FAILED + b"OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid", "no_certificate"),
        (FAILED + b"CERTIFICATE_VERIFY_FAILED: certificate has expired", "expired"),
        (FAILED + b"CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "not_yet_valid"),
        (FAILED + b"CERTIFICATE_VERIFY_FAILED: unable to get local issuer", "unknown_authority"),
        (FAILED + b"CERTIFICATE_VERIFY_FAILED: unsupported certificate purpose", "wrong_purpose"),
        (FAILED + b"OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA", "not_trusted"),
        (FAILED + b"OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid", "no_tls"),
        (FAILED + b"OPENSSL_internal:SOMETHING_NEW", "other"),
    ],
)
def test_a_failed_handshake_has_its_cause(line: bytes, name: str) -> None:
    found = cause_of(line + b"\n")
    assert found is not None
    assert found[0].name == name
    assert found[1].startswith("error SSL_ERROR_SSL")


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "serving"}\n',
        b"Traceback (most recent call last):\n",
        WHERE + b"No match found for server name: localhost\n",
        b"Handshake failed with nobody\n",
        b"\xff\xfe\n",
        b"",
    ],
)
def test_other_lines_are_none(line: bytes) -> None:
    assert cause_of(line) is None


def test_whatever_else_a_process_writes_comes_out_as_it_was_in_its_order() -> None:
    """Python's own writing, a library's to the descriptor, and a last word at the end."""
    program = f"""
import os, sys
from nocturne.runtime.handshakes import HandshakeLog
from nocturne.runtime.telemetry import Metrics, configure_logs
configure_logs("a", "info")
metrics = Metrics("a")
HandshakeLog(metrics)
print("from Python", file=sys.stderr)
os.write(2, b"from a library\\n" + {FAILED + b"SOMETHING"!r} + b"\\n" + b"x" * 10_000 + b"\\n")
os.write(2, b"the last word without a line feed")
raise SystemExit("ended so")
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=30, check=False
    )
    assert found.returncode == 1
    lines = found.stderr.splitlines()
    assert b"from Python" in lines
    assert b"from a library" in lines
    assert b"x" * 10_000 in lines
    assert b"ended so" in found.stderr
    assert b"the last word without a line feed" in found.stderr
    assert b'"event": "tls_handshake_failed"' in found.stderr
    assert b"ssl_transport_security" not in found.stderr


def test_handshakes_are_counted_though_nobody_reads_the_log_any_more() -> None:
    program = f"""
import os, sys, time
from nocturne.runtime.handshakes import HandshakeLog
from nocturne.runtime.telemetry import Metrics, configure_logs
configure_logs("a", "info")
metrics = Metrics("a")
HandshakeLog(metrics)
sys.stdin.readline()
name, label = "nocturne_a_tls_handshakes_failed_total", {{"cause": "other"}}
for _ in range(2):
    os.write(2, b"from a library\\n" + {FAILED + b"SOMETHING"!r} + b"\\n")
while metrics.registry.get_sample_value(name, label) != 2.0:
    time.sleep(0.01)
print("counted", flush=True)
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        process.stdin.write(b"go\n")
        process.stdin.flush()
        timer = threading.Timer(30, process.kill)
        timer.start()
        assert process.stdout.read() == b"counted\n"
        timer.cancel()
