"""A Kafka cluster as a client reaches it: where it is, who asks, and how both prove it.

Rules: docs/guides/settings.md, Kafka. Nothing of Kafka's client is loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nocturne.runtime.secrets import read_secret

SecurityProtocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
SaslMechanism = Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]

TLS: Final = ("ssl", "sasl_ssl")
SASL: Final = ("sasl_plaintext", "sasl_ssl")


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

    def connection(self) -> dict[str, str]:
        """librdkafka's settings of a connection; the password is read now. `SecretFault`."""
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol}
        if self.protocol in SASL and self.user is not None and self.password_file is not None:
            settings["sasl.mechanism"] = self.mechanism
            settings["sasl.username"] = self.user
            settings["sasl.password"] = read_secret(self.password_file)
        if self.protocol in TLS:
            # A broker whose certificate is of another name is not the one that was meant.
            settings["ssl.endpoint.identification.algorithm"] = "https"
            files = {
                "ssl.ca.location": self.ca_file,
                "ssl.certificate.location": self.cert_file,
                "ssl.key.location": self.key_file,
            }
            settings |= {name: str(file) for name, file in files.items() if file is not None}
        return settings
