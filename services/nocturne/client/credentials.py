"""What a client shows of itself, and whom it trusts: files, read again when they change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nocturne.client.results import CredentialsFault
from nocturne.core.access import TOKEN_BYTES_MAX, is_token
from nocturne.runtime.addresses import is_loopback_host
from nocturne.runtime.certificates import CertificateFault, Pair, read_authorities, read_pair

PORT_DIGITS_MAX: Final = 5
PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Credentials:
    """With `ca_file` a client speaks TLS, and only to a server whose certificate is of one of these
    authorities and names the host called; without it, plain text. `cert_file` and `key_file` are
    its own certificate, and `token_file` holds the token that it sends with each call: over plain
    text to this machine only. `CredentialsFault` when they do not go together.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise CredentialsFault(
                "a client certificate and its key go together: name both files, or none"
            )
        if self.cert_file is not None and self.ca_file is None:
            raise CredentialsFault(
                "a client certificate is shown over TLS only: name the file of the authorities "
                "that you trust as well"
            )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files hold now."""

    authorities: bytes | None = None
    pair: Pair | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def is_tls(self) -> bool:
        """Whether calls go over TLS."""
        return self.authorities is not None

    def same_connection(self, other: Loaded) -> bool:
        """Whether a connection made with one is as good for the other: all but the token."""
        return (self.authorities, self.pair) == (other.authorities, other.pair)


PLAIN = Loaded()


def load(credentials: Credentials | None) -> Loaded:
    """Read the files; `CredentialsFault` names the one that is no good."""
    if credentials is None:
        return PLAIN
    ca, cert, key = credentials.ca_file, credentials.cert_file, credentials.key_file
    try:
        authorities = None if ca is None else read_authorities(ca)
        pair = None if cert is None or key is None else read_pair(cert, key)
    except CertificateFault as fault:
        raise CredentialsFault(str(fault)) from fault
    token = None if credentials.token_file is None else _token(credentials.token_file)
    return Loaded(authorities, pair, token)


def _token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(TOKEN_BYTES_MAX + 2).strip()
    except OSError as fault:
        raise CredentialsFault(f"token file {file}: cannot be read ({fault.strerror})") from fault
    if not is_token(data):
        raise CredentialsFault(
            f"token file {file}: expected 16 to {TOKEN_BYTES_MAX} visible ASCII characters"
        )
    return data.decode("ascii")


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`; a host of IPv6 comes without its brackets."""
    host, separator, port = address.rpartition(":")
    is_port = port.isdecimal() and len(port) <= PORT_DIGITS_MAX and int(port) <= PORT_MAX
    if not separator or not host or not is_port:
        raise CredentialsFault(f"address: expected host:port, got {address[:80]!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether `host:port` is on this machine, so that nobody is between."""
    host, _ = host_and_port(address)
    return is_loopback_host(host)
