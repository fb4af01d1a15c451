"""Which ledger is trusted: the one named, or the home's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.cli.failures import bad_use
from nocturne.core.errors import Malformed
from nocturne.core.genesis import GENESIS_BYTES_MAX, Genesis, decode_genesis, ledger_id_of
from nocturne.core.identifiers import LedgerId, parse_hash
from nocturne.embedded.home import Home

GENESIS: Final = "genesis.avro"
_HASH_PREFIX: Final = "sha256-"


@dataclass(frozen=True, slots=True)
class Founding:
    """A ledger's genesis, as the file has it and read, and the id that it gives."""

    data: bytes
    genesis: Genesis
    ledger_id: LedgerId


def founding_of(home: Home) -> Founding | None:
    """What the ledger of a home was founded with; None when the home has no ledger yet."""
    file = home.root / GENESIS
    if not file.exists():
        return None
    try:
        return _read(file)
    except Malformed as fault:
        raise bad_use(
            f"{file} is no genesis ({fault}): choose another home with --home."
        ) from fault


def trusted(named: str | None, home: Home) -> LedgerId | None:
    """The ledger of `--trust` (an id, or a genesis file), else the home's, else None."""
    if named is None:
        founding = founding_of(home)
        return None if founding is None else founding.ledger_id
    if named.startswith(_HASH_PREFIX):
        try:
            return LedgerId(parse_hash(named))
        except Malformed as fault:
            raise bad_use(f"--trust takes a ledger id or a genesis file ({fault}).") from fault
    try:
        return _read(Path(named)).ledger_id
    except (Malformed, OSError, ValueError) as fault:
        # `ValueError`: a name that no file can have.
        why = fault.strerror if isinstance(fault, OSError) else fault
        raise bad_use(
            f"--trust takes a ledger id (sha256-…) or a genesis file, and {named[:140]!r} is "
            f"neither ({why})."
        ) from fault


def _read(file: Path) -> Founding:
    with file.open("rb") as opened:
        data = opened.read(GENESIS_BYTES_MAX + 1)
    return Founding(data, decode_genesis(data), ledger_id_of(data))
