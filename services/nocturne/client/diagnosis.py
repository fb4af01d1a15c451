"""Why a service cannot be reached over TLS, in one sentence: asked of the service itself.

gRPC says that a connection was closed, or quotes its TLS library. So a connection of our own is
made to the same address, with Python's TLS, which says what it refuses. A server that refuses a
*client* closes without a word: then it is our own certificate that is looked at.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from nocturne.client.credentials import Loaded, host_and_port
from nocturne.runtime.certificates import CertificateFault, expiry_of, load_into, pem_text

CONNECT_SECONDS_MAX: Final = 2.0
SETTINGS_SECONDS_MAX: Final = 2.0
"""A server of HTTP/2 speaks first, at once."""
AGAIN_SECONDS: Final = 0.25
"""A server that is stopping closes connections too: only one that does it twice refuses us."""

_HOST_MISMATCH: Final = 62
_IP_MISMATCH: Final = 64
_SERVER: Final = {
    9: "the server's certificate is not valid yet",
    10: "the server's certificate has expired",
    26: "the server's certificate is not for servers: its extended key usage lacks it",
    _HOST_MISMATCH: "the server's certificate is not for {host}",
    _IP_MISMATCH: "the server's certificate is not for {host}",
}
"""By OpenSSL's X509_V_ERR number."""
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})


@dataclass(frozen=True, slots=True)
class _Closed:
    """The handshake was made, and then the server closed without a word."""


async def why_not(address: str, loaded: Loaded) -> str | None:
    """Why TLS with `address` fails; None when it does not, or nothing listens, or nobody knows."""
    found = await asyncio.to_thread(_probe, address, loaded)
    if not isinstance(found, _Closed):
        return found
    await asyncio.sleep(AGAIN_SECONDS)
    if not isinstance(await asyncio.to_thread(_probe, address, loaded), _Closed):
        return None
    return await asyncio.to_thread(_own_fault, loaded)


def _own_fault(loaded: Loaded) -> str:
    """Why a server may close on us after the handshake."""
    if loaded.pair is None:
        return "the server demands a client certificate, and none was given"
    try:
        expiry_of(loaded.pair, of_client=True)
    except CertificateFault as fault:
        return f"the server refuses the client certificate: {fault}"
    return "the server refuses the client certificate: it is of no authority that the server trusts"


def _probe(address: str, loaded: Loaded) -> str | _Closed | None:
    host, port = host_and_port(address)
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS_MAX) as plain:
            if not loaded.is_tls:
                return _speaks_tls(plain)
            return _shake(plain, host, loaded)
    except OSError:
        return None


def _shake(plain: socket.socket, host: str, loaded: Loaded) -> str | _Closed | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem_text(loaded.authorities or b""))
    context.set_alpn_protocols(["h2"])
    if loaded.pair is not None:
        load_into(context, loaded.pair)
    try:
        secure = context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as fault:
        return _of_server(fault, host)
    except ssl.SSLError as fault:
        if fault.reason in _NO_TLS:
            return "the server speaks no TLS: call it without a file of authorities"
        return None
    with secure:
        secure.settimeout(SETTINGS_SECONDS_MAX)
        try:
            return None if secure.recv(1) else _Closed()
        except TimeoutError:
            return None
        except OSError:
            return _Closed()


def _of_server(fault: ssl.SSLCertVerificationError, host: str) -> str:
    if fault.verify_code in _UNKNOWN_AUTHORITY:
        return "the server's certificate is of no authority that is trusted here"
    known = _SERVER.get(fault.verify_code)
    if known is None:
        return f"the server's certificate is refused ({fault.verify_message})"
    return known.format(host=host)


def _speaks_tls(plain: socket.socket) -> str | None:
    """A server that answers a TLS greeting, to a client that was told of none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(plain):
            return "the server speaks TLS: name the file of the authorities that you trust"
    except OSError:
        return None
