"""The founding ceremony: each member makes its key in its own place, one genesis names them all.

    contribute   a member makes its key, and says its public part with a proof of possession
    compose      whoever founds the ledger makes the genesis from all contributions (contributions)
    complete     a member checks that it is in the genesis; a validator's journal is made for it

Where one process can reach every member's place, `found` is all three. No private key leaves the
place where it was made, and what one member keeps no other needs to read.

`<key>.founding` beside a key says that its founding is not finished: nobody has used the key, and
what a crash left half done is done again. A key without that mark has founded its ledger, and
founds no other one. A journal is never removed or written over: a validator's key votes only with
the journal that was made with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.core.errors import Halt, Malformed
from nocturne.core.genesis import GENESIS_BYTES_MAX, Genesis, decode_genesis, ledger_id_of
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Signer, prove_possession
from nocturne.deploy.contributions import (
    Contribution,
    FoundingFault,
    Role,
    Terms,
    compose,
    key_in,
)
from nocturne.runtime import journal
from nocturne.runtime.files import sync_folder, write_file
from nocturne.runtime.home import held_alone
from nocturne.runtime.keys import KeyFileFault, create_key_file, load_signer, public_file
from nocturne.runtime.kinds import KindMissing, check_kinds, installed_kinds

GENESIS_FILE: Final = "genesis.avro"
MARK: Final = ".founding"


@dataclass(frozen=True, slots=True)
class Member:
    """One holder of a key: what for, in which file, and the validator's own folder, which its
    journal is in.
    """

    role: Role
    ordinal: int
    key_file: Path
    home: Path | None = None

    def __str__(self) -> str:
        return f"{self.role.value} {self.ordinal}"

    @property
    def mark(self) -> Path:
        """The file that is there while the founding is not finished."""
        return self.key_file.with_name(self.key_file.name + MARK)

    @property
    def journal(self) -> Path | None:
        """The folder of a validator's journal; None for whoever casts no votes."""
        if self.role is not Role.VALIDATOR:
            return None
        if self.home is None:
            raise FoundingFault(f"{self} has no folder for its journal")
        return self.home / journal.FOLDER


@dataclass(frozen=True, slots=True)
class Founded:
    """A ledger that is founded."""

    genesis_file: Path
    ledger_id: LedgerId
    partitions: int
    validators: int


def members_of(home: Path, validators: int) -> tuple[Member, ...]:
    """The members whose places are in one folder, as one machine and one founding job have them:
    `keys/<member>/<name>.key`, and each validator's own folder.
    """
    keys = home / "keys"
    return (
        *(
            Member(
                Role.VALIDATOR,
                ordinal,
                keys / validator_name(ordinal) / "validator.key",
                home / validator_name(ordinal),
            )
            for ordinal in range(validators)
        ),
        Member(Role.AUTHORITY, 0, keys / "signing" / "authority.key"),
        Member(Role.OPERATOR, 0, keys / "operator" / "operator.key"),
    )


def validator_name(ordinal: int) -> str:
    """The name of a validator's service: `consensus-0`."""
    return f"consensus-{ordinal}"


def validators_of(genesis_file: Path) -> int | None:
    """How many validators a founding that is finished, or that composed its genesis, has named;
    None when there is none. `FoundingFault` when the file is damaged.
    """
    for path in (genesis_file, _draft(genesis_file)):
        try:
            return len(_decoded(path, path.read_bytes()).validators)
        except FileNotFoundError:
            continue
    return None


def has_founded(member: Member) -> bool:
    """Whether the member's key is there and belongs to a ledger."""
    return member.key_file.exists() and not member.mark.exists()


def contribute(member: Member) -> Contribution:
    """Make the member's key, or go on with one whose founding is not finished, and say its public
    part. `FoundingFault` when a key or a journal of an earlier founding is there.
    """
    left = _remains(member)
    if left is not None:
        raise FoundingFault(f"{left} is there: a key founds one ledger, and this one has")
    if not member.mark.exists():
        member.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        member.mark.touch(mode=0o600)
        sync_folder(member.mark.parent)
    signer = _key(member.key_file)
    return Contribution(member.role, member.ordinal, signer.key, prove_possession(signer))


def admit(member: Member, ledger_id: LedgerId) -> Contribution:
    """A validator that the genesis does not name: its key and its journal, made together, for a set
    change to admit. Safe to repeat: what is finished is only checked. `FoundingFault` when a key is
    there without its journal, or a journal without its key.
    """
    assert member.home is not None, "a validator has its own folder"
    assert member.journal is not None, "and its journal in it"
    if has_founded(member):
        signer = load_signer(member.key_file)
        # The validator may be running: it checks its journal itself when it starts.
        _check_journal(member.journal)
        return Contribution(member.role, member.ordinal, signer.key, prove_possession(signer))
    # Alone: two at once could each remove the other's half-written key.
    with held_alone(member.home):
        one = contribute(member)
        _make_journal(member.journal, journal.owner_label(ledger_id, one.key))
        _finish(member)
    return one


def complete(member: Member, genesis_data: bytes) -> None:
    """Take the genesis that names the member. `FoundingFault` when it does not, or when what
    belongs to the member's key is gone. Safe to repeat: what is finished is only checked.
    """
    _bind(member, genesis_data)
    _finish(member)


def found(members: Sequence[Member], genesis_file: Path, terms: Callable[[], Terms]) -> Founded:
    """The ledger of `genesis_file`, founded now if there is none; then checked, whole or not.

    `genesis_file` is written last: while it is not there, no service can start. What was composed
    stands beside it until then, so that a repetition founds the same ledger.
    """
    try:
        if not genesis_file.exists():
            _found(members, genesis_file, terms)
        data = genesis_file.read_bytes()
        genesis = _decoded(genesis_file, data)
        check_kinds(genesis, installed_kinds())
        _check_number(members, genesis)
        for member in members:
            complete(member, data)
    except OSError as fault:
        raise FoundingFault(
            f"{fault.filename or genesis_file} cannot be written or read ({fault.strerror})"
        ) from fault
    except KindMissing as fault:
        raise FoundingFault(f"the ledger of {genesis_file} cannot run here: {fault}") from fault
    return Founded(genesis_file, ledger_id_of(data), genesis.partitions, len(genesis.validators))


def _check_number(members: Sequence[Member], genesis: Genesis) -> None:
    named = len(genesis.validators)
    asked = sum(member.role is Role.VALIDATOR for member in members)
    if asked != named:
        raise FoundingFault(
            f"the ledger was founded with {named} validators, not {asked}: it keeps its number"
        )


def _draft(genesis_file: Path) -> Path:
    """Where the genesis is until every member is bound to it."""
    return genesis_file.with_name(genesis_file.name + MARK)


def _found(members: Sequence[Member], genesis_file: Path, terms: Callable[[], Terms]) -> None:
    for member in members:
        left = _remains(member)
        if left is not None:
            raise FoundingFault(
                f"{genesis_file.name} is gone from {genesis_file.parent}, but {left} is there: "
                f"put {genesis_file.name} back from a backup"
            )
    contributions = [contribute(member) for member in members]
    draft = _draft(genesis_file)
    if not draft.exists():
        draft.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(draft, compose(contributions, terms()))
    data = draft.read_bytes()
    _check_number(members, _decoded(draft, data))
    for member in members:
        _bind(member, data)
    draft.replace(genesis_file)
    sync_folder(genesis_file.parent)


def _remains(member: Member) -> Path | None:
    """What an earlier founding left in the member's place; None while one is not finished."""
    if member.mark.exists():
        return None
    places = (member.key_file, member.journal)
    return next((path for path in places if path is not None and path.exists()), None)


def _key(path: Path) -> Signer:
    """The key in `path`, made if it is not there or a crash left only a part of it."""
    if path.exists():
        try:
            return load_signer(path)
        except KeyFileFault:
            path.unlink()
    public_file(path).unlink(missing_ok=True)
    return create_key_file(path)


def _bind(member: Member, genesis_data: bytes) -> None:
    """Check the member against the genesis; give a validator that has none its journal."""
    genesis = _decoded(GENESIS_FILE, genesis_data)
    expected = key_in(genesis, member.role, member.ordinal)
    if expected is None:
        raise FoundingFault(f"the genesis has no {member}")
    if _may_be_elsewhere(member):
        return
    try:
        signer = load_signer(member.key_file)
    except KeyFileFault as fault:
        raise FoundingFault(
            f"the ledger's {fault}: put the file back from a backup with mode 0600"
        ) from fault
    if signer.key != expected:
        raise FoundingFault(
            f"the key {member.key_file} is not the one in {GENESIS_FILE}: put the right file back"
        )
    if member.journal is not None:
        label = journal.owner_label(ledger_id_of(genesis_data), signer.key)
        _bind_journal(member.journal, label, member.mark.exists())


def _may_be_elsewhere(member: Member) -> bool:
    """An operator's key is used by people, who may have taken it away once it was made."""
    return (
        member.role is Role.OPERATOR and not member.key_file.exists() and not member.mark.exists()
    )


def _bind_journal(directory: Path, label: bytes, founding: bool) -> None:
    if not founding:
        # The validator may be running: it checks its journal itself when it starts.
        _check_journal(directory)
        return
    # Alone: somebody may have started the validator although its founding was not finished.
    with held_alone(directory.parent):
        _make_journal(directory, label)


def _check_journal(directory: Path) -> None:
    if not journal.exists(directory):
        raise FoundingFault(
            f"the validator's journal {directory} is gone, and its key never votes without "
            "it: put the folder back as it last was, or give the ledger another validator"
        )


def _make_journal(directory: Path, label: bytes) -> None:
    """Make it, or see that what a crash left is this key's own."""
    if not journal.exists(directory):
        journal.create(directory, label)
    try:
        journal.open_journal(directory, label).close()
    except Halt as fault:
        raise FoundingFault(
            f"the validator's journal {directory} was not made for this genesis: {fault}"
        ) from fault


def _finish(member: Member) -> None:
    if member.mark.exists():
        member.mark.unlink()
        sync_folder(member.mark.parent)


def _decoded(name: Path | str, data: bytes) -> Genesis:
    try:
        if len(data) > GENESIS_BYTES_MAX:
            raise Malformed(f"expected at most {GENESIS_BYTES_MAX} bytes")
        return decode_genesis(data)
    except Malformed as fault:
        raise FoundingFault(f"{name} is damaged ({fault}): put it back from a backup") from fault
