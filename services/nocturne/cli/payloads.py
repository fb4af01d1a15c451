"""The argument PAYLOAD: JSON text, @FILE, or - for stdin; carried in its one printed form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from nocturne.cli.failures import bad_use
from nocturne.core.errors import Malformed
from nocturne.core.json_forms import PAYLOAD_DEPTH_MAX
from nocturne.core.strict_json import canonical_json, parse_json

CONTENT_TYPE: Final = "application/json"
PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""What is read at most before the ledger's own limit is known, which is far lower."""


def read(argument: str, stdin: Callable[[int], bytes]) -> bytes:
    """The bytes that PAYLOAD stands for, not parsed yet. `stdin` reads at most so many bytes."""
    if argument == "-":
        return stdin(PAYLOAD_BYTES_MAX + 1)
    if not argument.startswith("@"):
        return argument.encode("utf-8", "surrogateescape")
    name = argument[1:]
    if not name:
        raise bad_use("PAYLOAD @ names no file: write @FILE, - for stdin, or JSON text.")
    with Path(name).open("rb") as file:
        return file.read(PAYLOAD_BYTES_MAX + 1)


def canonical(data: bytes) -> bytes:
    """`data` as RFC 8785 JSON; a payload that is not JSON is bad use."""
    try:
        return canonical_json(parse_json(data, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX))
    except Malformed as fault:
        raise bad_use(
            f"PAYLOAD is not JSON a ledger keeps ({fault}): give JSON text, quoted for the shell, "
            "@FILE or - for stdin."
        ) from fault
