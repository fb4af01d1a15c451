"""What goes wrong before a call exists: TLS handshakes that fail, in the log and in a metric.

gRPC tells nobody of them but its own log on stderr. So a process that serves TLS reads its stderr
itself: of such a line it makes one of its own, every other it passes on unchanged.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from nocturne.runtime.telemetry import Metrics

LINE_BYTES_MAX: Final = 64 * 1024
LOG_SECONDS: Final = 1.0
"""Between two lines of one cause, with which anybody could fill the disk; the metric counts all."""
END_SECONDS_MAX: Final = 1.0

_FAILED: Final = re.compile(rb"ssl_transport_security\S*\] Handshake failed with (.{1,500})")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a handshake failed: the metric's label, and the sentence."""

    name: str
    sentence: str


_OTHER: Final = Cause("other", "the handshake failed")
_CAUSES: Final = (
    (
        b"PEER_DID_NOT_RETURN_A_CERTIFICATE",
        Cause("no_certificate", "the caller has no client certificate, and one is demanded"),
    ),
    (b"certificate has expired", Cause("expired", "the caller's certificate has expired")),
    (
        b"certificate is not yet valid",
        Cause("not_yet_valid", "the caller's certificate is not valid yet"),
    ),
    (
        b"certificate purpose",
        Cause("wrong_purpose", "the caller's certificate is not for clients"),
    ),
    (
        b"CERTIFICATE_VERIFY_FAILED",
        Cause("unknown_authority", "the caller's certificate is of no authority that is trusted"),
    ),
    (
        b"ALERT_UNKNOWN_CA",
        Cause("not_trusted", "the caller does not trust this server's certificate"),
    ),
    (
        b"CERTIFICATE_UNKNOWN",
        Cause("not_trusted", "the caller does not trust this server's certificate"),
    ),
    (
        b"ALERT_BAD_CERTIFICATE",
        Cause("not_trusted", "the caller does not trust this server's certificate"),
    ),
    (
        b"ALERT_CERTIFICATE_EXPIRED",
        Cause("not_trusted", "the caller finds this server's certificate expired"),
    ),
    (b"WRONG_VERSION_NUMBER", Cause("no_tls", "the caller speaks no TLS")),
    (b"HTTP_REQUEST", Cause("no_tls", "the caller speaks no TLS")),
    (b"UNSUPPORTED_PROTOCOL", Cause("old_tls", "the caller speaks no TLS of version 1.2 or newer")),
)


def cause_of(line: bytes) -> tuple[Cause, str] | None:
    """Why the handshake failed that this line of gRPC's log is about, and gRPC's own words; None of
    any other line.
    """
    found = _FAILED.search(line)
    if found is None:
        return None
    words = found[1].decode("utf-8", "replace").strip()
    for mark, cause in _CAUSES:
        if mark in found[1]:
            return cause, words
    return _OTHER, words


class HandshakeLog:
    """Reads this process's stderr from now on, in a thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._failed = metrics.counter(
            "tls_handshakes_failed", "TLS handshakes that failed, as far as known", ["cause"]
        )
        self._silent_until: dict[str, float] = {}
        sys.stderr.flush()
        self._stderr = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        # What this process writes itself goes where it went before.
        sys.stderr = os.fdopen(os.dup(self._stderr), "w", buffering=1, errors="backslashreplace")
        self._thread = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Give stderr back; what was written until now is still read."""
        os.dup2(self._stderr, 2)
        self._thread.join(END_SECONDS_MAX)

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                found = cause_of(line)
                # Nobody may read stderr any more: what is to be counted is counted all the same.
                with suppress(OSError):
                    if found is None:
                        os.write(self._stderr, line)
                    else:
                        self._say(*found)

    def _say(self, cause: Cause, words: str) -> None:
        self._failed.labels(cause.name).inc()
        now = time.monotonic()
        if now >= self._silent_until.get(cause.name, 0.0):
            self._silent_until[cause.name] = now + LOG_SECONDS
            log.warning("tls_handshake_failed", cause=cause.sentence, details=words)
