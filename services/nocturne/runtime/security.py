"""What a server demands of whoever comes: TLS, client certificates, an access file.

Rules: docs/guides/security.md. All of it is in files that are read again when they change, so that
certificates, authorities and principals are replaced while the service runs. What is broken does
not replace what works: it is said once, counted, and looked at again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import structlog

from nocturne.runtime.certificates import (
    CertificateFault,
    Pair,
    expiry_of,
    read_authorities,
    read_pair,
)
from nocturne.runtime.guard import Guard
from nocturne.runtime.handshakes import HandshakeLog
from nocturne.runtime.settings import ServiceSettings
from nocturne.runtime.telemetry import Metrics

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files: some hundred microseconds in a thread."""
CONNECTION_SECONDS_MAX: Final = 3_600
"""A connection is checked when it is made, so over TLS it is made anew every hour; calls in flight
may end. So long an expired or withdrawn certificate is good for at most, and `GRACE_SECONDS`.
"""
GRACE_SECONDS: Final = 600

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Held:
    """What handshakes are made with."""

    pair: Pair
    authorities: bytes | None


class ServerTls:
    """A server's certificate, and whose clients it takes. `CertificateFault` when the files are no
    good to begin with; an expired certificate is no reason not to start, for the service's other
    work goes on: it is said.
    """

    def __init__(
        self, certificate: Path, key: Path, client_authorities: Path | None, metrics: Metrics
    ) -> None:
        self._files = (certificate, key, client_authorities)
        self._expires = metrics.gauge(
            "tls_certificate_expires_timestamp_seconds", "When the server's certificate expires"
        )
        self._read = metrics.counter("tls_reads", "Certificates and authorities met", ["outcome"])
        for outcome in ("taken", "refused"):
            # There from the beginning: a series that begins with 1 never increases.
            self._read.labels(outcome)
        self._held = self._read_files()
        self._fault: str | None = None
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        try:
            self._expires.set(expiry_of(self._held.pair))
        except CertificateFault as fault:
            log.error("tls_certificate_unusable", file=str(certificate), cause=str(fault))

    @property
    def demands_certificates(self) -> bool:
        """Whether only clients with a certificate come in."""
        return self._files[2] is not None

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`: each handshake is made with what is good by then."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._held),
            # None is what gRPC takes for "as before"; its types do not say so.
            self._newest,  # type: ignore[arg-type]
            self.demands_certificates,
        )

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC for each handshake, in a thread of its own; None: as before."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def look(self) -> None:
        """Take what is in the files if it is other, and good. Reads them: call it from a thread."""
        try:
            found = self._read_files()
            if found == self._held:
                self._fault = None
                return
            expires = expiry_of(found.pair)
        except CertificateFault as fault:
            self._keep(str(fault))
            return
        self._held, self._fault = found, None
        self._fresh = _configuration(found)
        self._expires.set(expires)
        self._read.labels("taken").inc()
        log.info("tls_taken", file=str(self._files[0]), expires=int(expires))

    def _keep(self, fault: str) -> None:
        """The last good one stays; said once for each way in which the files are broken."""
        if fault == self._fault:
            return
        self._fault = fault
        self._read.labels("refused").inc()
        log.error("tls_refused", cause=fault, in_use="the last good one")

    def _read_files(self) -> _Held:
        certificate, key, authorities = self._files
        return _Held(
            read_pair(certificate, key),
            None if authorities is None else read_authorities(authorities),
        )


def _configuration(held: _Held) -> grpc.ServerCertificateConfiguration:
    pair = held.pair
    return grpc.ssl_server_certificate_configuration(
        [(pair.key, pair.certificate)], held.authorities
    )


class Security:
    """The doors of one server: its TLS and its guard, each None where there is none."""

    def __init__(self, tls: ServerTls | None, guard: Guard | None) -> None:
        self.tls = tls
        self.guard = guard

    async def watch(self) -> None:
        """Look at the files again and again, for as long as the server runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
                if self.guard is not None:
                    await self.guard.review()
            except OSError as fault:
                # Of the system, not of the files: no memory, no descriptor. Not for ever.
                log.error("files_not_looked_at", cause=str(fault))

    def look(self) -> None:
        """Take what has changed and is good."""
        for one in (self.tls, self.guard):
            if one is not None:
                one.look()


def security_of(settings: ServiceSettings, metrics: Metrics) -> Security | None:
    """What the settings ask for; None when they ask for nothing, and then nothing stands between a
    caller and the service. For a process of its own: with TLS it reads the process's stderr.
    """
    if settings.tls_cert_file is None and settings.access_file is None:
        return None
    tls = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        tls = ServerTls(
            settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file, metrics
        )
        HandshakeLog(metrics)
    guard = None if settings.access_file is None else Guard(settings.access_file, metrics)
    if guard is not None and tls is None:
        log.warning(
            "tokens_in_plain_text",
            cause="ACCESS_FILE is set and TLS_CERT_FILE is not: whoever "
            "sees this network sees the tokens",
        )
    return Security(tls, guard)
