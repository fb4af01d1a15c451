"""Certificates and keys in PEM files: read whole, and looked at before anybody relies on them.

Used by servers and by clients. A pair that is half written, whose key is another's, that has
expired or cannot be used on its side of a connection never replaces a good one.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nocturne.core.errors import NocturneError

PEM_BYTES_MAX: Final = 1024 * 1024
"""Of one file: the authorities of a whole operating system are 250 kB."""
_BEGIN: Final = b"-----BEGIN"
_REASONS: Final = {
    9: "is not valid yet",
    10: "has expired",
    26: "is not for this use: its extended key usage lacks it",
}
"""By OpenSSL's X509_V_ERR number."""


class CertificateFault(NocturneError):  # noqa: N818
    """A file cannot be used; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its private key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def read_pair(certificate_file: Path, key_file: Path) -> Pair:
    """The pair in two files; `CertificateFault` unless they are whole and belong together."""
    pair = Pair(read_pem(certificate_file), read_pem(key_file))
    algorithm = _unspoken(pair.key)
    if algorithm is not None:
        raise CertificateFault(
            f"the key in {key_file} is of {algorithm}, which gRPC does not take from its peers: "
            "expected RSA, or the elliptic curve P-256 or P-384"
        )
    try:
        load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
    except ssl.SSLError as fault:
        if fault.reason == "KEY_VALUES_MISMATCH":
            raise CertificateFault(
                f"the key in {key_file} is not the one of the certificate in {certificate_file}"
            ) from fault
        raise CertificateFault(
            f"{certificate_file} and {key_file}: expected a certificate and its private key in "
            f"PEM ({fault.reason or 'unreadable'})"
        ) from fault
    except _Encrypted as fault:
        raise CertificateFault(
            f"{key_file}: the key is encrypted, and nobody is there to be asked for its password"
        ) from fault
    return pair


def load_into(context: ssl.SSLContext, pair: Pair) -> None:
    """Give a context the pair; `ssl.SSLError` when it is none."""
    # Each from its own file, as everybody else takes them: together, what is missing in one would
    # be found in the other.
    with _loadable(pair.certificate) as certificate, _loadable(pair.key) as key:
        context.load_cert_chain(certificate, key, password=_no_password)


def read_authorities(file: Path) -> bytes:
    """Certificates of authorities in PEM; `CertificateFault` unless there is one at least."""
    data = read_pem(file)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem_text(data))
        count = context.cert_store_stats()["x509"]
    except ssl.SSLError as fault:
        raise CertificateFault(
            f"{file}: expected certificates of authorities in PEM, got other bytes"
        ) from fault
    if count == 0:
        raise CertificateFault(f"{file}: expected a certificate of an authority, got none")
    return data


def read_pem(file: Path) -> bytes:
    """The bytes of a PEM file, within the bound."""
    try:
        with file.open("rb") as opened:
            data = opened.read(PEM_BYTES_MAX + 1)
    except OSError as fault:
        raise CertificateFault(f"{file}: cannot be read ({fault.strerror})") from fault
    if len(data) > PEM_BYTES_MAX:
        raise CertificateFault(f"{file}: expected at most {PEM_BYTES_MAX} bytes")
    if _BEGIN not in data:
        raise CertificateFault(f"{file}: expected PEM, got no {_BEGIN.decode()} line")
    return data


def pem_text(data: bytes) -> str:
    """As Python's TLS takes it. Bundles have names in their comments, in any script; in a
    certificate such a byte stays wrong.
    """
    return data.decode("ascii", "replace").replace("\ufffd", "?")


def expiry_of(pair: Pair, *, of_client: bool = False) -> float:
    """When the certificate expires, in seconds since 1970; `CertificateFault` when it has expired,
    is not valid yet, or is not for its side of a connection.

    Asked of the TLS library itself, by a handshake in memory in which the certificate is its own
    trust anchor: what is refused here is what a peer would refuse.
    """
    asked = _handshake(pair, of_client)
    try:
        found = asked.getpeercert()
    except ValueError as fault:
        raise CertificateFault("the certificate cannot be looked at") from fault
    expires = (found or {}).get("notAfter")
    if not isinstance(expires, str):
        raise CertificateFault("the certificate does not say when it expires")
    return float(ssl.cert_time_to_seconds(expires))


def _handshake(pair: Pair, of_client: bool) -> ssl.SSLObject:
    """The end that has checked the certificate, of a connection from here to here."""
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    asking = server if of_client else client
    load_into(server, pair)
    if of_client:
        load_into(client, pair)
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        asking.load_verify_locations(cadata=pem_text(pair.certificate))
    except ssl.SSLError as fault:
        raise CertificateFault("the certificate cannot be looked at") from fault
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(there, back)
    called = server.wrap_bio(back, there, server_side=True)
    try:
        _shake(caller, called)
    except ssl.SSLCertVerificationError as fault:
        reason = _REASONS.get(fault.verify_code, f"is refused ({fault.verify_message})")
        raise CertificateFault(f"the certificate {reason}") from fault
    except ssl.SSLError as fault:
        raise CertificateFault(
            f"the certificate cannot be used ({fault.reason or 'TLS refused it'})"
        ) from fault
    return called if of_client else caller


def _shake(caller: ssl.SSLObject, called: ssl.SSLObject) -> None:
    """Both sides take their turns until both are done; TLS needs two each."""
    waiting = [caller, called]
    for _ in range(8):
        for one in tuple(waiting):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(one)
        if not waiting:
            return
    raise CertificateFault("the certificate cannot be looked at: no handshake came about")


_KEY: Final = re.compile(
    rb"-----BEGIN ((?:EC )?PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----", re.ASCII
)
_UNSPOKEN: Final = {
    bytes.fromhex("06032b6570"): "Ed25519",
    bytes.fromhex("06032b6571"): "Ed448",
    bytes.fromhex("06052b81040023"): "the curve P-521",
    bytes.fromhex("06092a864886f70d01010a"): "RSA-PSS",
}
"""Object identifiers in DER of what Python's TLS library takes and gRPC's, by default, does not."""
_IDENTIFIER_BYTES_MAX: Final = 40
"""How far into a key in PKCS #8 (RFC 5208) its algorithm's identifiers reach."""


def _unspoken(key: bytes) -> str | None:
    """The algorithm of a private key if gRPC cannot be met with it."""
    found = _KEY.search(key)
    if found is None:
        return None
    try:
        der = base64.b64decode(found[2])
    except binascii.Error:
        return None
    # A key of an older form (RFC 5915) says its curve at its end.
    searched = der if found[1].startswith(b"EC") else der[:_IDENTIFIER_BYTES_MAX]
    return next((name for mark, name in _UNSPOKEN.items() if mark in searched), None)


@contextmanager
def _loadable(data: bytes) -> Iterator[str]:
    """A path from which the TLS library loads it: in memory, never on a disk."""
    descriptor = os.memfd_create("nocturne-pair")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


class _Encrypted(Exception):  # noqa: N818
    """The key wants a password."""


def _no_password() -> str:
    raise _Encrypted
