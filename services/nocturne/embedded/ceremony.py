"""Found the ledger of a home, once: its keys, its genesis, and the validator's journal.

    keys/consensus-0/validator.key   the one validator        keys/operator/operator.key   operators
    keys/signing/authority.key       the authority            genesis.avro                 record 0
    consensus-0/journal/             made together with the validator's key

On one machine there is one validator and one operator (threshold 1 of 1): whoever has the machine
has both, and no threshold would change that. Any author may open any session, and nothing is asked
beyond `signed`. The ledger has every session kind that is installed when it is founded.

`genesis.avro` is written last: while it is missing and `founding` is there, nobody has used the
keys, and what a crash left half done is done again.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    Limits,
    OpenRule,
    decode_genesis,
    encode_genesis,
    ledger_id_of,
)
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Key, Signer, prove_possession
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.runtime import journal
from nocturne.runtime.keys import KeyFileFault, create_key_file, load_signer
from nocturne.runtime.kinds import InstalledKinds, KindMissing, check_kinds, installed_kinds

PARTITIONS: Final = 4
"""More than one machine's cores ask for; a ledger cannot change it later."""
EPOCH_LENGTH: Final = 65_536
"""Heights; with one validator an epoch's end changes nothing but numbers."""
NONCE_BYTES: Final = 32

GENESIS_FILE: Final = "genesis.avro"
VALIDATOR: Final = "consensus-0"

_FOUNDING: Final = "founding"


@dataclass(frozen=True, slots=True)
class Founded:
    """The ledger of a home."""

    genesis_file: Path
    ledger_id: LedgerId
    partitions: int


def ensure(home: Path) -> Founded:
    """The ledger of this home; founded now if it has none. `EmbeddedError` when parts of it are
    gone or belong to another ledger.
    """
    place = Home(home)
    genesis_file = home / GENESIS_FILE
    try:
        if not genesis_file.exists():
            _found(place, genesis_file)
        genesis = _checked(place, genesis_file)
        (home / _FOUNDING).unlink(missing_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"The ledger in {home} cannot be founded or read ({error.strerror}): choose another "
            "home with --home."
        ) from error
    return Founded(genesis_file, ledger_id_of(genesis_file.read_bytes()), genesis.partitions)


def validator_key(home: Home) -> Path:
    """The file of the validator's key."""
    return home.keys(VALIDATOR) / "validator.key"


def authority_key(home: Home) -> Path:
    """The file of the authority's key, which signs events and receipts."""
    return home.keys("signing") / "authority.key"


def operator_key(home: Home) -> Path:
    """The file of the operator's key, which signs control records."""
    return home.keys("operator") / "operator.key"


def _found(place: Home, genesis_file: Path) -> None:
    home = place.root
    marker = home / _FOUNDING
    if not marker.exists():
        _refuse_remains(place, genesis_file)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker.touch(mode=0o600)
        _sync_folder(home)
    validator = _key(validator_key(place))
    authority = _key(authority_key(place))
    operator = _key(operator_key(place))
    data = encode_genesis(_genesis(validator, authority, operator))
    # No vote was ever cast: the founding is not finished.
    directory = place.data(VALIDATOR) / journal.FOLDER
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    journal.create(directory, journal.owner_label(ledger_id_of(data), validator.key))
    _write(genesis_file, data)


def _refuse_remains(place: Home, genesis_file: Path) -> None:
    remains = [
        path
        for path in (validator_key(place), authority_key(place), place.data(VALIDATOR))
        if path.exists()
    ]
    if remains:
        raise EmbeddedError(
            f"{genesis_file.name} is gone from {place.root}, but {remains[0]} is there: put "
            "genesis.avro back from a backup, or choose another home with --home."
        )


def _genesis(validator: Signer, authority: Signer, operator: Signer) -> Genesis:
    return Genesis(
        format_version=1,
        rules_version=1,
        nonce=secrets.token_bytes(NONCE_BYTES),
        partitions=PARTITIONS,
        epoch_length=EPOCH_LENGTH,
        limits=Limits(),
        validators=((validator.key, prove_possession(validator)),),
        authority=authority.key,
        authority_possession=prove_possession(authority),
        anchors=(),
        operators=(operator.key,),
        operator_threshold=1,
        kinds=_installed().entries,
        open_policy=(OpenRule(None, "", ""),),
        finality=FinalityPolicy(),
    )


def _installed() -> InstalledKinds:
    try:
        return installed_kinds()
    except NocturneError as fault:
        raise EmbeddedError(f"No ledger can run here: {fault}.") from fault


def _key(path: Path) -> Signer:
    """The key in `path`, made if it is not there or a crash left only a part of it."""
    path.parent.parent.mkdir(mode=0o700, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists():
        try:
            return load_signer(path)
        except KeyFileFault:
            path.unlink()
    path.with_name(path.name + ".pub").unlink(missing_ok=True)
    return create_key_file(path)


def _checked(place: Home, genesis_file: Path) -> Genesis:
    try:
        data = genesis_file.read_bytes()
        genesis = decode_genesis(data)
    except Malformed as fault:
        raise EmbeddedError(
            f"{genesis_file} is damaged ({fault}): put it back from a backup, or choose another "
            "home with --home."
        ) from fault
    try:
        check_kinds(genesis, _installed())
    except KindMissing as fault:
        raise EmbeddedError(f"The ledger of this home cannot run here: {fault}.") from fault
    _check_key(validator_key(place), genesis.validators[0][0])
    _check_key(authority_key(place), genesis.authority)
    if not journal.exists(place.data(VALIDATOR) / journal.FOLDER):
        raise EmbeddedError(
            f"The validator's journal {place.data(VALIDATOR) / journal.FOLDER} is gone, and its "
            "key never votes without it: put the folder back as it last was, or start another "
            "ledger with --home."
        )
    return genesis


def _check_key(path: Path, expected: Key) -> None:
    try:
        signer = load_signer(path)
    except KeyFileFault as fault:
        raise EmbeddedError(
            f"The ledger's {fault}: put the file back from a backup with mode 0600, or choose "
            "another home with --home."
        ) from fault
    if signer.key != expected:
        raise EmbeddedError(
            f"The key {path} is not the one in genesis.avro: put the right file back, or choose "
            "another home with --home."
        )


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
