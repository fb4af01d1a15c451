"""Certificates for tests, made on the spot: authorities, servers, clients, good and bad ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Made:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """`name.crt` and `name.key` in `folder`, put in place whole, the key first."""
        folder.mkdir(parents=True, exist_ok=True)
        files = (folder / f"{name}.crt", folder / f"{name}.key")
        for path, data in zip(reversed(files), (self.key, self.certificate), strict=True):
            fresh = path.with_suffix(".fresh")
            fresh.write_bytes(data)
            fresh.replace(path)
        return files


class Authority:
    """Vouches for names."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key.public_key(), -DAY, 30 * DAY)
        self._certificate = builder.add_extension(x509.BasicConstraints(True, 0), True).sign(
            self._key, hashes.SHA256()
        )

    @property
    def certificate(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.certificate)
        return path

    def make(
        self,
        common_name: str,
        *names: str,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        use: x509.ObjectIdentifier | None = None,
    ) -> Made:
        """A certificate for DNS names, addresses and URIs."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(common_name), self._name, key.public_key(), begins, ends)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_general(names)), False)
        if use is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Made(
            signed.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def encrypted(made: Made) -> Made:
    """The same with its key behind a password."""
    key = serialization.load_pem_private_key(made.key, None)
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a password"),
    )
    return Made(made.certificate, data)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: timedelta,
    ends: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _general(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(one) for one in names]


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
