"""Which ledger is trusted: the one named, or the home's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from nocturne.cli.failures import bad_use
from nocturne.core.errors import Malformed
from nocturne.core.genesis import GENESIS_BYTES_MAX, Genesis, decode_genesis, ledger_id_of
from nocturne.core.identifiers import LedgerId, parse_hash
from nocturne.embedded.home import Home

GENESIS: Final = "genesis.avro"
LEDGER: Final = "LEDGER"
"""The variable, without its prefix, that names the trusted ledger of a deployment."""
PREFIX: Final = "NOCTURNE_"
"""Of every setting's variable, as in `runtime.settings`, which few commands need."""
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


def trusted(
    named: str | None, home: Home, environment: Mapping[str, str] = MappingProxyType({})
) -> LedgerId | None:
    """The ledger of `--trust` (an id, or a genesis file), else of NOCTURNE_LEDGER, else the home's,
    else None.
    """
    if named is not None:
        return _named(named, "--trust")[0]
    ledger = ledger_of(environment)
    if ledger is not None:
        return ledger[0]
    founding = founding_of(home)
    return None if founding is None else founding.ledger_id


def ledger_of(environment: Mapping[str, str]) -> tuple[LedgerId, bytes | None] | None:
    """The ledger of NOCTURNE_LEDGER, with its genesis when it names a file; None if not given."""
    named = environment.get(PREFIX + LEDGER)
    return _named(named, PREFIX + LEDGER) if named else None


def _named(named: str, where: str) -> tuple[LedgerId, bytes | None]:
    if named.startswith(_HASH_PREFIX):
        try:
            return LedgerId(parse_hash(named)), None
        except Malformed as fault:
            raise bad_use(f"{where} takes a ledger id or a genesis file ({fault}).") from fault
    try:
        founding = _read(Path(named))
    except (Malformed, OSError, ValueError) as fault:
        # `ValueError`: a name that no file can have.
        why = fault.strerror if isinstance(fault, OSError) else fault
        raise bad_use(
            f"{where} takes a ledger id (sha256-…) or a genesis file, and {named[:140]!r} is "
            f"neither ({why})."
        ) from fault
    return founding.ledger_id, founding.data


def _read(file: Path) -> Founding:
    with file.open("rb") as opened:
        data = opened.read(GENESIS_BYTES_MAX + 1)
    return Founding(data, decode_genesis(data), ledger_id_of(data))
