"""Calls that no client library would make: HTTP/2 frames written by hand (RFC 9113, RFC 7541)."""

from __future__ import annotations

import socket
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
SECONDS_MAX = 10.0

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 §4.1."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def request(path: bytes, headers: Sequence[Header] = ()) -> bytes:
    """A connection's first bytes, with one call that carries an empty message."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *headers,
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    end_headers, end_stream = 4, 1
    return (
        PREFACE + SETTINGS + frame(1, end_headers, 1, block) + frame(0, end_stream, 1, b"\x00" * 5)
    )


def _text(data: bytes) -> bytes:
    """A literal without Huffman coding, RFC 7541 §5.2."""
    assert len(data) < 127
    return bytes((len(data),)) + data


def answer(port: int, sent: bytes) -> bytes:
    """All that the server sends until the call has ended, or it has closed."""
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as connection:
        connection.sendall(sent)
        received = b""
        while not _has_ended(received):
            data = connection.recv(65536)
            if not data:
                break
            received += data
        return received


def _has_ended(received: bytes) -> bool:
    """A frame with END_STREAM, or one that resets the stream, is there."""
    at = 0
    while at + 9 <= len(received):
        length, kind, flags = (
            int.from_bytes(received[at : at + 3], "big"),
            *received[at + 3 : at + 5],
        )
        at += 9 + length
        if at <= len(received) and ((kind in (0, 1) and flags & 1) or kind == 3):
            return True
    return False
