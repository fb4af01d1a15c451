"""Certificates and authorities of Kafka's clients, replaced while the clients live.

librdkafka reads them once, when a client is made, so a client with others is another client. This
file says when there is to be one; how each kind changes over is in `runtime/kafka.py`. Files that
are broken, and files with which the cluster lets nobody in, replace nothing: it is said once,
counted, and looked at again. Rules: docs/guides/security.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import structlog

from nocturne.core.errors import Unavailable
from nocturne.runtime.certificates import CertificateFault, expiry_of
from nocturne.runtime.cluster import Cluster, TlsFiles
from nocturne.runtime.telemetry import Metrics

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files: some hundred microseconds in a thread."""
TRIES_APART_SECONDS: Final = 2.0
"""Between two tries of the same files at the cluster, which may begin to let them in, or come back.
Well below the ten seconds after which a client that is refused ends its service.
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fault:
    """Why files are not taken. Faults of one cause are one, whatever else was heard."""

    cause: str
    heard: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """The files in force, and the fault of those that are there instead, once it was said."""

    files: TlsFiles
    fault: Fault | None = None


class Said(Enum):
    """What is said of a look that told something new."""

    TAKEN = "taken"
    REFUSED = "refused"


def judged(standing: Standing, found: TlsFiles | Fault) -> tuple[Standing, Said | None]:
    """What stands after a look at the files, and what is to be said of it."""
    if isinstance(found, Fault):
        said = None if found == standing.fault else Said.REFUSED
        return Standing(standing.files, found), said
    if found == standing.files:
        return Standing(standing.files), None
    return Standing(found), Said.TAKEN


LetsIn = Callable[[Cluster, TlsFiles], str | None]
"""Ask the cluster with these files: None when it answers, else why it does not let them in;
`Unavailable` when it is away. Blocks.
"""


class Measures:
    """What a service counts of its Kafka clients' files."""

    def __init__(self, metrics: Metrics, *, of_certificate: bool) -> None:
        self._read = metrics.counter(
            "kafka_tls_reads", "Certificates and authorities for Kafka met", ["outcome"]
        )
        for said in Said:
            # There from the beginning: a series that begins with 1 never increases.
            self._read.labels(said.value)
        self._expires = None
        if of_certificate:
            self._expires = metrics.gauge(
                "kafka_tls_certificate_expires_timestamp_seconds",
                "When the certificate that Kafka is shown expires",
            )

    def said(self, said: Said) -> None:
        """Files were taken or refused."""
        self._read.labels(said.value).inc()

    def expires(self, at: float) -> None:
        """Seconds since 1970."""
        if self._expires is not None:
            self._expires.set(at)


class Rotation:
    """The files of one cluster's TLS that are in force in this process."""

    def __init__(
        self, cluster: Cluster, files: TlsFiles, lets_in: LetsIn, measures: Measures | None
    ) -> None:
        self._cluster = cluster
        self._standing = Standing(files)
        self._lets_in = lets_in
        self._measures = measures
        self._tried: TlsFiles | None = None
        self._try_again_at = 0.0
        self._over = threading.Event()
        self.members: list[Member] = []
        self._say_expiry(files)

    @property
    def files(self) -> TlsFiles:
        """The last ones that were good."""
        return self._standing.files

    def start(self) -> None:
        """Look again and again, in a thread of its own: a cluster that is asked may be slow."""
        threading.Thread(target=self._watch, name="kafka-files", daemon=True).start()

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def look(self) -> None:
        """Take what is in the files if it is other, and good, and the cluster lets it in. Blocks
        for as long as the cluster takes to answer.
        """
        found = self._found()
        if found is None:
            return
        self._standing, said = judged(self._standing, found)
        if said is None:
            return
        if self._measures is not None:
            self._measures.said(said)
        if isinstance(found, Fault):
            log.warning(
                "kafka_tls_refused",
                cause=found.cause,
                heard=found.heard,
                in_use="the last good ones",
            )
            return
        self._say_expiry(found)
        log.info("kafka_tls_taken", cluster=self._cluster.bootstrap, by=self._cluster.principal)
        for member in tuple(self.members):
            member.told()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self.look()
            except OSError as fault:
                # Of the system, not of the files: no memory, no descriptor. Not for ever.
                log.error("files_not_looked_at", cause=str(fault))

    def _found(self) -> TlsFiles | Fault | None:
        """What the files are worth; None when nobody can say yet."""
        try:
            found = self._cluster.read_tls()
            if found == self.files:
                return found
            if found.pair is not None:
                expiry_of(found.pair, of_client=True)
        except CertificateFault as fault:
            return Fault(str(fault))
        return self._tried_out(found)

    def _tried_out(self, found: TlsFiles) -> TlsFiles | Fault | None:
        if found == self._tried and time.monotonic() < self._try_again_at:
            return None
        try:
            refusal = self._lets_in(self._cluster, found)
        except Unavailable:
            return None
        finally:
            self._tried, self._try_again_at = found, time.monotonic() + TRIES_APART_SECONDS
        if refusal is None:
            return found
        return Fault("Kafka does not let in a client with the files as they are now", refusal)

    def _say_expiry(self, files: TlsFiles) -> None:
        if files.pair is None or self._measures is None:
            return
        try:
            self._measures.expires(expiry_of(files.pair, of_client=True))
        except CertificateFault as fault:
            # No reason not to start: the cluster decides whom it lets in.
            log.error("kafka_tls_unusable", file=str(self._cluster.cert_file), cause=str(fault))


class Member:
    """A client's part in a rotation, from its making to its end."""

    def __init__(
        self, rotation: Rotation, leave: Callable[[Member], None], told: Callable[[], None]
    ) -> None:
        self._rotation = rotation
        self._leave = leave
        self.told = told
        """Called in the rotation's thread when files were taken; it must not block."""

    @property
    def files(self) -> TlsFiles:
        """Those that a client is to be made with now."""
        return self._rotation.files

    def leave(self) -> None:
        """The client has ended. Once more does nothing."""
        self._leave(self)


class Rotations:
    """Those of a process: one for each cluster that has clients, so that all of them change over to
    the same files, and what is wrong with these is said once.
    """

    def __init__(self, lets_in: LetsIn) -> None:
        self._lets_in = lets_in
        self._lock = threading.Lock()
        self._rotations: dict[Cluster, Rotation] = {}
        self._measures: dict[Cluster, Measures] = {}

    def measure(self, cluster: Cluster, metrics: Metrics) -> None:
        """Count for a service what its clients' files do; nothing where there are no files."""
        if cluster.has_tls_files:
            of_certificate = cluster.cert_file is not None
            self._measures[cluster] = Measures(metrics, of_certificate=of_certificate)

    def files_of(self, cluster: Cluster) -> TlsFiles:
        """What a client is to be made with: the last good ones where clients live already, else
        what is in the files. `CertificateFault`.
        """
        with self._lock:
            rotation = self._rotations.get(cluster)
        return cluster.read_tls() if rotation is None else rotation.files

    def join(
        self, cluster: Cluster, files: TlsFiles, told: Callable[[], None] = lambda: None
    ) -> Member:
        """A client lives from now on that was made with these files."""
        with self._lock:
            rotation = self._rotations.get(cluster)
            if rotation is None:
                rotation = Rotation(cluster, files, self._lets_in, self._measures.get(cluster))
                self._rotations[cluster] = rotation
                if cluster.has_tls_files:
                    rotation.start()
            member = Member(rotation, lambda one: self._leave(cluster, one), told)
            rotation.members.append(member)
        return member

    def _leave(self, cluster: Cluster, member: Member) -> None:
        with self._lock:
            rotation = self._rotations.get(cluster)
            if rotation is None or member not in rotation.members:
                return
            rotation.members.remove(member)
            if not rotation.members:
                rotation.end()
                del self._rotations[cluster]
