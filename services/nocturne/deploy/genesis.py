"""Found a ledger: `python -m nocturne.deploy.genesis [found|contribute|compose|complete|admit]`.

    found        all of it, where one process reaches every member's place (the default):
                 keys/<member>/ and consensus-<n>/ in HOME_DIR, then GENESIS_FILE
    contribute   one member: ROLE, ORDINAL, KEY_FILE, a validator's HOME_DIR → CONTRIBUTION_FILE
    compose      whoever founds: CONTRIBUTIONS_DIR, VALIDATORS → GENESIS_FILE, once and for all
    complete     one member again: ROLE, ORDINAL, KEY_FILE, a validator's HOME_DIR, GENESIS_FILE
    admit        a validator more, of a ledger that is founded: KEY_FILE, HOME_DIR, GENESIS_FILE →
                 CONTRIBUTION_FILE, for operators to admit

Rules: docs/guides/settings.md, docs/spec/ledger.md §1; what each step does: `ceremony`. Every step
may be repeated. Exit codes: 0 done, 1 refused (the sentence says why), 2 settings.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_hash
from nocturne.deploy import ceremony, jobs
from nocturne.deploy.ceremony import Member
from nocturne.deploy.contributions import (
    CONTRIBUTION_BYTES_MAX,
    EPOCH_LENGTH,
    ORDINAL_MAX,
    PARTITIONS,
    VALIDATORS,
    Contribution,
    FoundingFault,
    Role,
    Terms,
    check_validators,
    compose,
    decode_contribution,
    encode_contribution,
    key_in,
)
from nocturne.runtime.files import write_file
from nocturne.runtime.home import held_alone
from nocturne.runtime.kinds import installed_kinds
from nocturne.runtime.settings import ProcessSettings, read_founding, read_settings

NONCE_BYTES: Final = 32
CONTRIBUTIONS_MAX: Final = 2_000
"""Files that are looked at: more than any set of members."""

Natural = Annotated[int, Field(ge=0, le=ORDINAL_MAX)]
Positive = Annotated[int, Field(ge=1)]


class TermsSettings(ProcessSettings):
    """What the genesis is to say."""

    validators: int = VALIDATORS
    partitions: Positive = PARTITIONS
    """Of commands, events and receipts; a ledger cannot change it later."""
    epoch_length: Positive = EPOCH_LENGTH
    operator_threshold: Positive = 1


class FoundSettings(TermsSettings):
    """`found`."""

    home_dir: Path
    genesis_file: Path


class ComposeSettings(TermsSettings):
    """`compose`."""

    contributions_dir: Path
    genesis_file: Path


class MemberSettings(ProcessSettings):
    """Who a member is, and what it has in its own place."""

    role: Role
    ordinal: Natural = 0
    key_file: Path

    @property
    def member(self) -> Member:
        """The member."""
        return Member(self.role, self.ordinal, self.key_file, self.home_dir)


class ContributeSettings(MemberSettings):
    """`contribute`."""

    contribution_file: Path


class CompleteSettings(MemberSettings):
    """`complete`."""

    genesis_file: Path


class AdmitSettings(ContributeSettings):
    """`admit`."""

    role: Literal[Role.VALIDATOR] = Role.VALIDATOR
    home_dir: Path
    genesis_file: Path


def found() -> str:
    """Found the ledger, or check it when it is there."""
    settings = read_settings(FoundSettings)
    check_validators(settings.validators)
    members = ceremony.members_of(settings.home_dir, settings.validators)
    # Two at once could each remove the other's half-written key, and neither could ever go on.
    with held_alone(settings.genesis_file.parent):
        done = ceremony.found(members, settings.genesis_file, lambda: terms_of(settings))
    return f"the ledger {format_hash(done.ledger_id)} is founded"


def contribute() -> str:
    """Make the member's key and hand over its public part. A member whose ledger is founded keeps
    what it has, and hands nothing over again.
    """
    settings = read_settings(ContributeSettings)
    member = settings.member
    if ceremony.has_founded(member):
        return f"{member} belongs to a ledger already"
    write_file(settings.contribution_file, encode_contribution(ceremony.contribute(member)))
    return f"{member} has contributed {settings.contribution_file}"


def compose_genesis() -> str:
    """Make the genesis of the contributions; one that is there is only held against them."""
    settings = read_settings(ComposeSettings)
    check_validators(settings.validators)
    contributions = contributions_in(settings.contributions_dir)
    validators = sum(one.role is Role.VALIDATOR for one in contributions)
    if validators != settings.validators:
        raise FoundingFault(
            f"expected the contributions of {settings.validators} validators in "
            f"{settings.contributions_dir}, got {validators}"
        )
    if not settings.genesis_file.exists():
        write_file(settings.genesis_file, compose(contributions, terms_of(settings)))
    founding = read_founding(settings.genesis_file)
    for one in contributions:
        if key_in(founding.genesis, one.role, one.ordinal) != one.key:
            raise FoundingFault(
                f"{settings.genesis_file} is there and has not the key of {one.role.value} "
                f"{one.ordinal}: a genesis is never changed"
            )
    return f"the ledger is {format_hash(founding.ledger_id)}"


def complete() -> str:
    """Take the genesis: check the member's own key, make a validator's journal."""
    settings = read_settings(CompleteSettings)
    founding = read_founding(settings.genesis_file)
    ceremony.complete(settings.member, founding.data)
    return f"{settings.member} is a member of {format_hash(founding.ledger_id)}"


def admit() -> str:
    """Make a validator that the genesis does not name, key and journal together."""
    settings = read_settings(AdmitSettings)
    founding = read_founding(settings.genesis_file)
    made = ceremony.admit(settings.member, founding.ledger_id)
    data = encode_contribution(made)
    write_file(settings.contribution_file, data)
    print(data.decode("ascii"), end="", flush=True)
    return (
        f"a validator of {format_hash(founding.ledger_id)} is made: it votes once operators have "
        f"admitted it ('nocturne validators add' with {settings.contribution_file.name})"
    )


def terms_of(settings: TermsSettings) -> Terms:
    """The terms, with a nonce of their own and every session kind that is installed."""
    return Terms(
        secrets.token_bytes(NONCE_BYTES),
        installed_kinds().entries,
        settings.partitions,
        settings.epoch_length,
        settings.operator_threshold,
    )


def contributions_in(folder: Path) -> list[Contribution]:
    """The contributions that were handed over as files. `FoundingFault` on one that is none."""
    try:
        paths = sorted(folder.glob("*.json"))
        if len(paths) > CONTRIBUTIONS_MAX:
            raise FoundingFault(f"{folder}: expected at most {CONTRIBUTIONS_MAX} contributions")
        return [_contribution(path) for path in paths]
    except OSError as fault:
        raise FoundingFault(f"{folder} cannot be read ({fault.strerror})") from fault


def _contribution(path: Path) -> Contribution:
    with path.open("rb") as file:
        data = file.read(CONTRIBUTION_BYTES_MAX + 1)
    try:
        return decode_contribution(data)
    except Malformed as fault:
        raise FoundingFault(f"{path}: {fault}") from fault


STEPS: Final[dict[str, Callable[[], str]]] = {
    "found": found,
    "contribute": contribute,
    "compose": compose_genesis,
    "complete": complete,
    "admit": admit,
}


def main() -> int:
    """Exit codes: see above."""
    return jobs.run("genesis", STEPS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
