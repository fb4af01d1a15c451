"""A Kafka cluster as a client reaches it: where it is, who asks, and how both prove it.

Rules: docs/guides/settings.md, Kafka. Nothing of Kafka's client is loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from nocturne.runtime.certificates import Pair, pem_text, read_authorities, read_pair
from nocturne.runtime.secrets import read_secret

SecurityProtocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
SaslMechanism = Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]

TLS: Final = ("ssl", "sasl_ssl")
SASL: Final = ("sasl_plaintext", "sasl_ssl")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What is in a cluster's files for TLS, whole and fitting together, in PEM."""

    authorities: bytes | None = field(repr=False)
    """Who vouches for the brokers; None: the system's."""
    pair: Pair | None = field(repr=False)
    """What the brokers are shown; None: nothing."""

    def settings(self) -> dict[str, str]:
        """librdkafka's. The bytes themselves, not the files' names: what was looked at is what is
        used, whatever is in the files by then.
        """
        texts = {"ssl.ca.pem": self.authorities}
        if self.pair is not None:
            texts |= {"ssl.certificate.pem": self.pair.certificate, "ssl.key.pem": self.pair.key}
        return {name: pem_text(text) for name, text in texts.items() if text}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster is and how it is met. It holds the names of secrets' files and no secret."""

    bootstrap: str
    """`host:port`, several with commas."""
    protocol: SecurityProtocol = "plaintext"
    mechanism: SaslMechanism = "SCRAM-SHA-512"
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def principal(self) -> str:
        """Who asks, in words."""
        if self.user is not None:
            return f"the user {self.user!r}"
        if self.cert_file is not None:
            return f"the certificate {self.cert_file}"
        return "a client without a name"

    @property
    def has_tls_files(self) -> bool:
        """Whether there is anything to rotate."""
        return self.protocol in TLS and (self.ca_file is not None or self.cert_file is not None)

    def read_tls(self) -> TlsFiles:
        """What is in the files now; nothing without TLS. `CertificateFault` unless all are whole
        and the key is the certificate's.
        """
        if self.protocol not in TLS:
            return TlsFiles(None, None)
        pair = None
        if self.cert_file is not None and self.key_file is not None:
            pair = read_pair(self.cert_file, self.key_file)
        return TlsFiles(None if self.ca_file is None else read_authorities(self.ca_file), pair)

    def connection(self, files: TlsFiles | None = None) -> dict[str, str]:
        """librdkafka's settings of a connection. The password is read now, and so are the files
        for TLS if none are given. `SecretFault`, `CertificateFault`.
        """
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol}
        if self.protocol in SASL and self.user is not None and self.password_file is not None:
            settings["sasl.mechanism"] = self.mechanism
            settings["sasl.username"] = self.user
            settings["sasl.password"] = read_secret(self.password_file)
        if self.protocol in TLS:
            # A broker whose certificate is of another name is not the one that was meant.
            settings["ssl.endpoint.identification.algorithm"] = "https"
            settings |= (files or self.read_tls()).settings()
        return settings
