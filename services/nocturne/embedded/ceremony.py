"""Found the ledger of a home, once: its keys, its genesis, and its validators' journals.

    keys/consensus-<n>/validator.key   validator n          keys/operator/operator.key   operators
    keys/signing/authority.key         the authority        genesis.avro                 record 0
    consensus-<n>/journal/             made together with validator n's key

The validators are processes of one machine: whoever has it has all their keys. They show how the
quorum works and outlive one that is killed; against a liar they stand on machines of their own.
For the same reason there is one operator (threshold 1 of 1). The ceremony is every deployment's
(`deploy/ceremony.py`); here it has every place in one folder.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nocturne.core.errors import NocturneError
from nocturne.deploy import ceremony
from nocturne.deploy.ceremony import GENESIS_FILE, Founded, Member
from nocturne.deploy.contributions import Role, Terms
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.runtime.kinds import installed_kinds

__all__ = [
    "GENESIS_FILE",
    "VALIDATOR",
    "Founded",
    "authority_key",
    "ensure",
    "next_validator",
    "operator_key",
    "validator_key",
    "validators_here",
]

NONCE_BYTES: Final = 32
VALIDATORS_HERE_MAX: Final = 64
"""Twice a set: each may be rotated once before those that left are taken away."""
VALIDATOR: Final = ceremony.validator_name(0)


def ensure(home: Path, validators: int) -> Founded:
    """The ledger of this home; founded now if it has none, with so many validators. One that was
    founded keeps its own number. `EmbeddedError` when parts of it are gone or belong to another
    ledger.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        genesis_file = home / GENESIS_FILE
        count = ceremony.validators_of(genesis_file) or validators
        return ceremony.found(ceremony.members_of(home, count), genesis_file, _terms)
    except OSError as error:
        raise EmbeddedError(
            f"The home {home} cannot be used ({error.strerror}): choose another with --home."
        ) from error
    except NocturneError as fault:
        raise EmbeddedError(
            f"No ledger can run here: {fault}, or choose another home with --home."
        ) from fault


def next_validator(home: Home) -> Member:
    """The place of one validator more, after those of genesis and those that were made later: the
    first without a finished key. `EmbeddedError` when there are too many here.
    """
    for member in _places(home):
        if not ceremony.has_founded(member):
            return member
    raise EmbeddedError(f"{home.root} has {VALIDATORS_HERE_MAX} validators: one machine is enough.")


def validators_here(home: Home) -> int:
    """How many validators have their place in this home: those of genesis, and those whose key and
    journal were made later, whether the set has them or not.
    """
    return next(
        (one.ordinal for one in _places(home) if not ceremony.has_founded(one)), VALIDATORS_HERE_MAX
    )


def _places(home: Home) -> Iterator[Member]:
    """Of validators that the genesis does not name, by their ordinals."""
    founded = ceremony.validators_of(home.root / GENESIS_FILE) or 0
    members = ceremony.members_of(home.root, VALIDATORS_HERE_MAX)
    return (one for one in members[founded:] if one.role is Role.VALIDATOR)


def validator_key(home: Home, ordinal: int = 0) -> Path:
    """The file of a validator's key."""
    return ceremony.members_of(home.root, ordinal + 1)[ordinal].key_file


def authority_key(home: Home) -> Path:
    """The file of the authority's key, which signs events and receipts."""
    return _key_file(home, Role.AUTHORITY)


def operator_key(home: Home) -> Path:
    """The file of the operator's key, which signs control records."""
    return _key_file(home, Role.OPERATOR)


def _key_file(home: Home, role: Role) -> Path:
    return next(one.key_file for one in ceremony.members_of(home.root, 1) if one.role is role)


def _terms() -> Terms:
    return Terms(secrets.token_bytes(NONCE_BYTES), installed_kinds().entries)
