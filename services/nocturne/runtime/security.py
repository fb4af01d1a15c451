"""What a server demands of whoever comes: TLS, client certificates, an access file.

Rules: docs/guides/security.md. All of it is in files that are read again when they change, so that
certificates, authorities and principals are replaced while the service runs. What is broken does
not replace what works: it is said once, counted, and looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc
import structlog

from nocturne.runtime.addresses import is_loopback_host
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
        self._held = self._given = _Held(self._read_pair(), self._read_authorities())
        self._faults: dict[str, str] = {}
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
        held = self._held
        if held is self._given and not self.demands_certificates:
            return None
        # With client certificates anew for each: gRPC then forgets the session tickets it gave,
        # with which a client would come in again without its certificate being looked at, long
        # after that expired. Beside a handshake's milliseconds the 40 µs are nothing.
        self._given = held
        return _configuration(held)

    def look(self) -> None:
        """Take what is in the files if it is other, and good. Reads them: call it from a thread.

        The pair and the authorities are taken each for itself: a certificate that cannot be used
        does not keep an authority in force that was withdrawn.
        """
        self._try("pair", self._look_at_pair)
        self._try("authorities", self._look_at_authorities)

    def _try(self, part: str, look: Callable[[], None]) -> None:
        try:
            look()
        except CertificateFault as fault:
            self._keep(part, str(fault))
        else:
            self._faults.pop(part, None)

    def _keep(self, part: str, fault: str) -> None:
        """The last good one stays; said once for each way in which the files are broken."""
        if fault == self._faults.get(part):
            return
        self._faults[part] = fault
        self._read.labels("refused").inc()
        log.error("tls_refused", cause=fault, in_use="the last good one")

    def _look_at_pair(self) -> None:
        pair = self._read_pair()
        if pair == self._held.pair:
            return
        expires = expiry_of(pair)
        self._take(replace(self._held, pair=pair))
        self._expires.set(expires)
        log.info("tls_taken", file=str(self._files[0]), expires=int(expires))

    def _look_at_authorities(self) -> None:
        authorities = self._read_authorities()
        if authorities == self._held.authorities:
            return
        self._take(replace(self._held, authorities=authorities))
        log.info("tls_taken", file=str(self._files[2]))

    def _take(self, held: _Held) -> None:
        self._held = held
        self._read.labels("taken").inc()

    def _read_pair(self) -> Pair:
        certificate, key, _ = self._files
        return read_pair(certificate, key)

    def _read_authorities(self) -> bytes | None:
        file = self._files[2]
        return None if file is None else read_authorities(file)


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
            except Exception as fault:
                # Of the system (no descriptor) or a mistake of ours; files that are no good are
                # told by `look`. Said each time, and never the last look: nobody would be shut
                # out again.
                log.error("files_not_looked_at", cause=repr(fault))

    def look(self) -> None:
        """Take what has changed and is good."""
        for one in (self.tls, self.guard):
            if one is not None:
                one.look()


def security_of(settings: ServiceSettings, metrics: Metrics) -> Security | None:
    """What the settings ask for; None when they ask for nothing, and then nothing stands between a
    caller and the service. For a process of its own: with TLS it reads the process's stderr.
    """
    host = settings.listen.rpartition(":")[0].strip("[]")
    if not is_loopback_host(host):
        _say_what_is_open(settings)
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


def _say_what_is_open(settings: ServiceSettings) -> None:
    """A network is not this machine: who leaves the doors off there should know it."""
    missing = {
        "TLS_CERT_FILE": (
            settings.tls_cert_file,
            "whoever is between reads and alters what is said",
        ),
        "ACCESS_FILE": (settings.access_file, "whoever reaches this address may call everything"),
    }
    causes = [
        f"{name} is not set: {what}" for name, (file, what) in missing.items() if file is None
    ]
    if causes:
        log.warning("open_to_the_network", listen=settings.listen, cause="; ".join(causes))
