"""Addresses of services: their form, where they are, and a file that lists validators'.

The file has `host:port` on each line; empty lines, and what follows a `#`, are for people.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

import structlog

from nocturne.core.errors import Malformed

PEERS_MAX: Final = 1_000
"""Addresses of validators: twice as many as a set may have members."""
FILE_BYTES_MAX: Final = 256 * 1024
"""As many names of the greatest length."""

log = structlog.get_logger()


def check_address(text: str) -> str:
    """`text` if it is `host:port`, else ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"expected host:port, got {text[:80]!r}")
    return text


def parse_addresses(data: bytes) -> tuple[str, ...]:
    """The addresses that a file lists; `Malformed` names the first line that has none."""
    if len(data) > FILE_BYTES_MAX:
        raise Malformed(f"addresses: expected at most {FILE_BYTES_MAX} bytes, got {len(data)}")
    try:
        lines = [line.partition("#")[0].strip() for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError as fault:
        raise Malformed("addresses: expected UTF-8") from fault
    found = [(number, line) for number, line in enumerate(lines, 1) if line]
    if len(found) > PEERS_MAX:
        raise Malformed(f"addresses: expected at most {PEERS_MAX}, got {len(found)}")
    for number, line in found:
        try:
            if any(mark.isspace() or mark == "," for mark in line):
                raise ValueError(f"expected one host:port, got {line[:80]!r}")
            check_address(line)
        except ValueError as fault:
            raise Malformed(f"addresses: line {number}: {fault}") from fault
    return tuple(dict.fromkeys(line for _, line in found))


class AddressFile:
    """A file with addresses that changes while whoever reads it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data: bytes | None = None
        self._fault: str | None = None

    def read(self) -> tuple[str, ...] | None:
        """What it lists now; None when it is as it was. One that is broken changes nothing and is
        told once; one that is not there lists nothing.
        """
        try:
            data = self._read()
            if data == self._data:
                return None
            found = parse_addresses(data)
        except (Malformed, OSError) as fault:
            if str(fault) != self._fault:
                self._fault = str(fault)
                log.warning("addresses_refused", path=str(self._path), cause=self._fault)
            return None
        self._data, self._fault = data, None
        return found

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return b""


def is_loopback_host(host: str) -> bool:
    """Whether only this machine is there, so that nobody is between. IPv6 without brackets; names
    are not looked up.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
