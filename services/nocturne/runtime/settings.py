"""Settings of a service: from the environment, read once in `__main__`, frozen.

Rules: docs/guides/settings.md. Every name has the prefix NOCTURNE_; a secret has no default. A
service's own class is put together from these: `class Settings(KafkaSettings, KeySettings)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nocturne.core.errors import NocturneError
from nocturne.core.genesis import GENESIS_BYTES_MAX, Genesis, decode_genesis, ledger_id_of
from nocturne.core.identifiers import LedgerId
from nocturne.runtime import registry
from nocturne.runtime.addresses import PEERS_MAX, check_address
from nocturne.runtime.cluster import SASL, TLS, Cluster, SaslMechanism, SecurityProtocol

if TYPE_CHECKING:
    # Loaded by who has a database alone.
    from nocturne.runtime.postgres import Database

PREFIX: Final = "NOCTURNE_"

Given = TypeVar("Given", str, Path, None)

LogLevel = Literal["debug", "info", "warning", "error"]


Address = Annotated[str, AfterValidator(check_address)]
"""`host:port`; port 0 asks the system for a free one."""


def _between_commas(given: object) -> object:
    return [one.strip() for one in given.split(",")] if isinstance(given, str) else given


Addresses = Annotated[
    tuple[Address, ...], NoDecode, BeforeValidator(_between_commas), Field(max_length=PEERS_MAX)
]
"""`host:port`, several with commas."""


def _is_collector(text: str) -> str:
    scheme, separator, address = text.partition("://")
    if scheme not in ("http", "https") or not separator:
        raise ValueError(f"expected http://host:port or https://host:port, got {text[:80]!r}")
    check_address(address)
    return text


CollectorAddress = Annotated[str, AfterValidator(_is_collector)]
"""Of an OTLP collector's gRPC: `http://host:port`, or `https://…` with TLS."""


def _is_registry(text: str) -> str:
    if not registry.is_address(text):
        # It may hold a password: it is not shown.
        raise ValueError("expected an address like http://registry:8080/apis/ccompat/v7")
    return text


RegistryAddress = Annotated[str, AfterValidator(_is_registry)]
"""Of Confluent's API: `http(s)://[user:password@]host[:port][/path]`."""


class _Frozen(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )


class ProcessSettings(_Frozen):
    """What `lifecycle.run` needs of any process, before its service reads its own."""

    home_dir: Path | None = None
    """The service's own directory."""
    log_level: LogLevel = "info"
    metrics_listen: Address | None = None
    """Where Prometheus reads the metrics and probes ask; None: nowhere."""
    otlp_endpoint: CollectorAddress | None = None
    """Where spans of traces go; None: none are made."""
    trace_ratio: float = Field(default=0.01, ge=0, le=1)
    """Of the traces that begin here, the share that is recorded; those that a caller began are as
    the caller says.
    """
    on_halt: Literal["exit", "stay"] = "exit"
    """What a halted process does: end with its exit code at once, or stay, not ready and without
    work, until it is told to stop, so that an orchestrator does not start it for ever.
    """


class ServiceSettings(ProcessSettings):
    """What every service has: its directory, its ledger, its gRPC address (health is there)."""

    home_dir: Path
    genesis_file: Path
    listen: Address
    registry_url: RegistryAddress | None = Field(None, repr=False)
    """Schema registry (Confluent's API), never shown, for it may hold a password; None: the fixed
    ids of `topics.FIXED_SCHEMA_IDS`.
    """
    tls_cert_file: Path | None = None
    """The server's certificate with its chain (PEM), read again when it changes; None: no TLS."""
    tls_key_file: Path | None = Field(None, validate_default=True)
    tls_client_ca_file: Path | None = None
    """Authorities of client certificates (PEM): only clients with one come in; None: any client."""
    access_file: Path | None = None
    """Who may call what (`core.access`), read again when it changes; None: whoever comes."""

    @field_validator("tls_key_file", "tls_client_ca_file")
    @classmethod
    def _beside_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("tls_cert_file")
        if value is not None and certificate is None:
            raise ValueError("expected NOCTURNE_TLS_CERT_FILE beside it, got none")
        if value is None and certificate is not None and info.field_name == "tls_key_file":
            raise ValueError("expected the key of NOCTURNE_TLS_CERT_FILE, got none")
        return value


class ClusterSettings(_Frozen):
    """How a process meets Kafka. What does not fit together is refused: a password that a plain
    connection would never send, a user without one.
    """

    kafka_bootstrap: str
    kafka_security_protocol: SecurityProtocol = "plaintext"
    kafka_sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    kafka_user: str | None = Field(None, max_length=249, validate_default=True)
    kafka_password_file: Path | None = Field(None, validate_default=True)
    kafka_ca_file: Path | None = None
    kafka_cert_file: Path | None = None
    kafka_key_file: Path | None = Field(None, validate_default=True)

    @field_validator("kafka_user", "kafka_password_file")
    @classmethod
    def _is_for_sasl(cls, value: Given, info: ValidationInfo) -> Given:
        protocol = info.data.get("kafka_security_protocol", "plaintext")
        if (value is not None) != (protocol in SASL):
            needed = "needed" if protocol in SASL else "of no use"
            raise ValueError(f"is {needed} with the security protocol {protocol}")
        return value

    @field_validator("kafka_ca_file", "kafka_cert_file", "kafka_key_file")
    @classmethod
    def _is_for_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_security_protocol", "plaintext")
        if value is not None and protocol not in TLS:
            raise ValueError(f"is of no use with the security protocol {protocol}")
        return value

    @field_validator("kafka_key_file")
    @classmethod
    def _belongs_to_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("kafka_cert_file") is None):
            raise ValueError("certificate and key are given together or not at all")
        return value

    @property
    def cluster(self) -> Cluster:
        """The cluster as these settings say."""
        return Cluster(
            self.kafka_bootstrap,
            self.kafka_security_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_user,
            self.kafka_password_file,
            self.kafka_ca_file,
            self.kafka_cert_file,
            self.kafka_key_file,
        )


class DatabaseSettings(_Frozen):
    """How a process meets PostgreSQL. The address may hold a password: it is never logged."""

    postgres_password_file: Path | None = None
    postgres_dsn: str = Field(repr=False)

    @field_validator("postgres_dsn")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        from nocturne.runtime.postgres import check_dsn

        try:
            check_dsn(value, info.data.get("postgres_password_file"))
        except NocturneError as fault:
            raise ValueError(str(fault)) from fault
        return value

    @property
    def database(self) -> Database:
        """The database as these settings say."""
        from nocturne.runtime.postgres import Database

        return Database(self.postgres_dsn, self.postgres_password_file)


class KafkaSettings(ServiceSettings, ClusterSettings):
    """A service that reads or writes topics."""


class PostgresSettings(ServiceSettings, DatabaseSettings):
    """A service with a database."""


class KeySettings(ServiceSettings):
    """A service that signs."""

    key_file: Path


class PeerSettings(ServiceSettings):
    """A validator, which talks with others. Its own certificate is its server's."""

    peers: Addresses = ()
    """Where validators listen; its own address may be among them."""
    peers_file: Path | None = None
    """More of them (`runtime.addresses`), read again when it changes; None, or not there: none."""
    peers_ca_file: Path | None = None
    """Who vouches for the others' certificates (PEM), read for each connection; None: no TLS."""


Settings = TypeVar("Settings", bound=ProcessSettings)


def read_settings(kind: type[Settings]) -> Settings:
    """The settings of `kind` from the environment; `lifecycle.run` turns what is wrong with them
    into one line a name and exit code 2.
    """
    return kind()


@dataclass(frozen=True, slots=True)
class Founding:
    """The genesis a service works under, as the file has it."""

    data: bytes
    genesis: Genesis
    ledger_id: LedgerId


def read_founding(path: Path) -> Founding:
    """The genesis in `path`; `NocturneError` when it cannot be read or founds no ledger."""
    try:
        size = path.stat().st_size
        if size > GENESIS_BYTES_MAX:
            raise NocturneError(f"genesis {path}: expected at most {GENESIS_BYTES_MAX} bytes")
        data = path.read_bytes()
    except OSError as fault:
        raise NocturneError(f"genesis {path}: cannot be read ({fault.strerror})") from fault
    return Founding(data, decode_genesis(data), ledger_id_of(data))
