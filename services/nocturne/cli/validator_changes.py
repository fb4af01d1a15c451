"""validators new, add, remove, rotate, sets, sign, submit: who certifies, and from when.

Rules: docs/spec/consensus.md §1, docs/guides/operations.md. A validator makes its key where it will
vote, and its journal with it; operators see its public part and a proof that somebody has the rest.
They sign the whole set that is to be, so nobody else's change can slip in beside theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import surroundings, trust
from nocturne.cli.consent import confirm
from nocturne.cli.decisions import (
    Decision,
    KeyOption,
    OutOption,
    ProposalArgument,
    check_operator,
    operating,
    signer_of,
)
from nocturne.cli.failures import bad_use
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.validator_changes_view import (
    Change,
    change_json,
    change_lines,
    decided_json,
    decided_parts,
    key_text,
    set_table,
    sizes_text,
)
from nocturne.client.operating import Governance
from nocturne.core.control import decode_control
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.keys import Key, format_key, key_id
from nocturne.core.validator_sets import (
    ACTION,
    Member,
    acts_from,
    check_members,
    members_of,
    set_fields,
    with_added,
    with_removed,
    with_rotated,
)
from nocturne.deploy import ceremony as founding
from nocturne.deploy.contributions import (
    CONTRIBUTION_BYTES_MAX,
    Contribution,
    Role,
    decode_contribution,
    encode_contribution,
)
from nocturne.embedded import ceremony
from nocturne.embedded.home import Home
from nocturne.runtime.files import write_file

CONTRIBUTION_FILE: Final = "validator.json"
KEY_FILE: Final = "validator.key"

_DECISION: Final = Decision(ACTION, "validators", "validators add", "validators sets")

_FILE: Final = typer.Argument(
    metavar="FILE",
    help="What 'validators new' wrote: the key's public part, with a proof of its possession.",
    show_default=False,
)
_VALIDATOR: Final = typer.Argument(
    metavar="VALIDATOR",
    help="Its place in the newest set, its key (ed25519-…) or its key id (sha256-…).",
    show_default=False,
)
SureOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def validators_new(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="The validator's own folder; the next place of the home when not given.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make a validator's key and its journal, together; the set does not know it yet."""
    around = surroundings.of(context)
    place = around.home(home)
    name, member = _place_of(around, place, folder)
    made = founding.admit(member, _ledger_of(around, place))
    assert member.home is not None
    file = member.home / CONTRIBUTION_FILE
    write_file(file, encode_contribution(made))
    if as_json:
        around.emit(
            {
                "name": name,
                "keyId": format_hash(key_id(made.key)),
                "key": [format_key(part) for part in made.key],
                "keyFile": str(member.key_file),
                "folder": str(member.home),
                "file": str(file),
            }
        )
        return
    around.out.print(Text.assemble(("✓ ", "green"), (name, "bold"), f"  {key_text(made.key)}"))
    around.say(
        f"It votes for nobody yet. Operators admit it with 'nocturne validators add {file}'; that "
        "file holds no secret. Key and journal belong together and to one process: never copy "
        "them, and never put back an older copy."
    )


def validators_sets(
    context: typer.Context, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show whose keys certify now, and which sets are decided for later."""
    around = surroundings.of(context)
    now = _ask(around, home)
    if as_json:
        around.emit(decided_json(now))
        return
    for part in decided_parts(now):
        around.out.print(part)
    around.say(
        f"Decision {now.number}, at block {now.height}. {now.operator_threshold} of "
        f"{len(now.operators)} operators change it."
    )


def validators_add(
    context: typer.Context,
    files: Annotated[list[str], _FILE],
    key: KeyOption = None,
    out: OutOption = None,
    is_sure: SureOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Admit validators: they certify from the epoch after the next one on."""
    new = [_read_member(one) for one in files]

    def wanted(members: tuple[Member, ...]) -> tuple[Member, ...]:
        for one in new:
            members = with_added(members, one)
        return members

    _change(surroundings.of(context), home, wanted, key, out, is_sure, as_json)


def validators_remove(
    context: typer.Context,
    named: Annotated[list[str], _VALIDATOR],
    key: KeyOption = None,
    out: OutOption = None,
    is_sure: SureOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove validators: they observe from the epoch after the next one on."""

    def wanted(members: tuple[Member, ...]) -> tuple[Member, ...]:
        # Places are those of the set as it is now, not of what is left after the first.
        for gone in [_key_of(members, one) for one in named]:
            members = with_removed(members, gone)
        return members

    _change(surroundings.of(context), home, wanted, key, out, is_sure, as_json)


def validators_rotate(
    context: typer.Context,
    old: Annotated[str, _VALIDATOR],
    new: Annotated[str, _FILE],
    key: KeyOption = None,
    out: OutOption = None,
    is_sure: SureOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Put a new validator's key in an old one's place, from the epoch after the next one on."""
    member = _read_member(new)

    def wanted(members: tuple[Member, ...]) -> tuple[Member, ...]:
        return with_rotated(members, _key_of(members, old), member)

    _change(surroundings.of(context), home, wanted, key, out, is_sure, as_json)


def validators_sign(
    context: typer.Context, file: ProposalArgument, key: KeyOption = None, home: HomeOption = None
) -> None:
    """Show the set that another operator proposes, and add a signature to the proposal."""
    around = surroundings.of(context)
    record = _DECISION.read(file)
    control, _ = decode_control(record)
    members = members_of(control)
    try:
        check_members(members)
    except Malformed as fault:
        raise bad_use(f"{file} proposes what can be no set of validators ({fault}).") from fault
    around.out.print(f"Decision {control.number} of ledger {format_hash(control.ledger_id)}:")
    around.out.print(set_table(Change(members, members)))
    around.out.print(f"{sizes_text(len(members))}.")
    _DECISION.sign(around, file, record, signer_of(around, home, key))


def validators_submit(
    context: typer.Context,
    file: ProposalArgument,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring a signed proposal into the ledger."""
    around = surroundings.of(context)
    record = _DECISION.read(file)
    now = _ask(around, home)
    after = members_of(decode_control(record)[0])
    _bring(around, home, now, Change(now.newest.members, after), record, as_json)


# How it is done --------------------------------------------------------------------------------


def _change(
    around: Surroundings,
    home: Path | None,
    wanted: Callable[[tuple[Member, ...]], tuple[Member, ...]],
    key: Path | None,
    out: Path | None,
    is_sure: bool,
    as_json: bool,
) -> None:
    """Show what the set will be, ask, sign, and bring it in, or write it for the others."""
    signer = signer_of(around, home, key)
    now = _ask(around, home)
    check_operator(now, signer)
    before = now.newest.members
    try:
        change = Change(before, wanted(before))
    except Malformed as fault:
        raise bad_use(
            f"That can be no set of validators ({fault}): 'nocturne validators sets' shows those "
            "that are decided."
        ) from fault
    if out is None:
        _DECISION.check_alone(now)
    around.err.print(set_table(change))
    for line in change_lines(change, now):
        around.say(line)
    confirm(around, "These keys, in this order, will certify the ledger.", is_sure)
    record = _DECISION.propose(now, set_fields(change.after), signer)
    if out is not None:
        _DECISION.hand_over(around, now, record, out)
        return
    _bring(around, home, now, change, record, as_json)


def _bring(
    around: Surroundings,
    home: Path | None,
    now: Governance,
    change: Change,
    record: bytes,
    as_json: bool,
) -> None:
    governed = _DECISION.submit(around, home, record)
    first_epoch, first_height = acts_from(now.epoch_length, governed.height)
    if as_json:
        around.emit(
            {
                "height": governed.height,
                "blockDigest": format_hash(governed.digest),
                "firstEpoch": first_epoch,
                "firstHeight": first_height,
                **change_json(change),
            }
        )
        return
    around.out.print(
        Text.assemble(
            ("✓ ", "green"),
            f"in block {governed.height}; the new set certifies from block {first_height} on "
            f"(epoch {first_epoch})",
        )
    )
    around.say(
        f"Until then the validators of before go on, and whoever leaves must run until block "
        f"{first_height - 1} is certified. Blocks come with commands alone."
    )


def _ask(around: Surroundings, home: Path | None) -> Governance:
    return operating(around, home, lambda operators: operators.agreed_governance())


def _place_of(around: Surroundings, home: Home, folder: Path | None) -> tuple[str, founding.Member]:
    if folder is not None:
        return folder.name, founding.Member(Role.VALIDATOR, 0, folder / KEY_FILE, folder)
    if trust.founding_of(home) is None:
        raise bad_use(
            f"There is no ledger in {home.root}: name the FOLDER that the validator will have."
        )
    member = ceremony.next_validator(home)
    return founding.validator_name(member.ordinal), member


def _ledger_of(around: Surroundings, home: Home) -> LedgerId:
    """A journal is of one ledger."""
    found = trust.trusted(None, home, around.environment)
    if found is None:
        raise bad_use(
            "Which ledger it is for is not said: set NOCTURNE_LEDGER to its id (sha256-…) or to "
            "its genesis file, or name its home with --home."
        )
    return found


def _read_member(name: str) -> Member:
    if _is_key(name):
        raise bad_use(
            f"{name[:80]} is a key without a proof that anyone has it: name the file that "
            "'nocturne validators new' wrote beside it."
        )
    with Path(name).open("rb") as file:
        data = file.read(CONTRIBUTION_BYTES_MAX + 1)
    try:
        found: Contribution = decode_contribution(data)
    except Malformed as fault:
        raise bad_use(
            f"{name} holds no validator's key with its proof ({fault}): 'nocturne validators new' "
            "writes such a file."
        ) from fault
    if found.role is not Role.VALIDATOR:
        raise bad_use(f"{name} holds the key of the {found.role.value}, not of a validator.")
    return found.key, found.possession


def _is_key(text: str) -> bool:
    return text.startswith(("ed25519-", "sha256-")) and not Path(text).exists()


def _key_of(members: Sequence[Member], named: str) -> Key:
    """The key of a member that is named by place, key or key id."""
    for place, (key, _) in enumerate(members):
        if named in (str(place), key_text(key), format_hash(key_id(key))):
            return key
    raise bad_use(
        f"{named[:80]!r} is nobody in the newest set of {len(members)}: 'nocturne validators sets' "
        "shows places, keys and key ids."
    )
