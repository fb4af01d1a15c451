"""Which ledger is trusted: the one named, or the home's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nocturne.cli.failures import bad_use
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.identifiers import LedgerId, parse_hash
from nocturne.embedded.home import Home
from nocturne.runtime.settings import Founding, read_founding

GENESIS: Final = "genesis.avro"
_HASH_PREFIX: Final = "sha256-"


def founding_of(home: Home) -> Founding | None:
    """What the ledger of a home was founded with; None when the home has no ledger yet."""
    file = home.root / GENESIS
    return read_founding(file) if file.exists() else None


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
        return read_founding(Path(named)).ledger_id
    except NocturneError as fault:
        raise bad_use(
            f"--trust takes a ledger id (sha256-…) or a genesis file, and {named} is neither: "
            f"{fault}."
        ) from fault
