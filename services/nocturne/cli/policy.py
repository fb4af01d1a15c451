"""policy: who may open what; show it, change it, and sign a change that others proposed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import surroundings
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import Column, table
from nocturne.cli.surroundings import Surroundings
from nocturne.client.operating import Governance, Governed
from nocturne.core.control import (
    CONTROL_BYTES_MAX,
    Control,
    cosign_control,
    decode_control,
    sign_control,
)
from nocturne.core.errors import Malformed
from nocturne.core.genesis import OpenRule
from nocturne.core.governing import OPEN_RULES_MAX, policy_fields, policy_of
from nocturne.core.identifiers import AuthorId, format_hash, is_session_id, is_type_name
from nocturne.core.json_fields import Fields
from nocturne.core.keys import Signer, key_id
from nocturne.core.strict_json import JsonValue, parse_json
from nocturne.embedded.ceremony import operator_key
from nocturne.runtime.keys import load_signer

policy = typer.Typer(help="See and change who may open which sessions.", no_args_is_help=True)

RULES_BYTES_MAX: Final = 512 * 1024
VALID_BLOCKS: Final = 1_000_000
"""How many blocks operators have to sign a proposal: at ten blocks a second a day."""

_RULES: Final = (Column("author"), Column("kind"), Column("session begins with"))

KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="An operator's key file: the home's own when not given.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the signed proposal there for the other operators; change nothing.",
        show_default=False,
    ),
]


@policy.command("show")
def policy_show(
    context: typer.Context, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show the rules in force, and how many operators it takes to change them."""
    around = surroundings.of(context)
    found = _ask(around, home)
    if as_json:
        around.emit(_governance_json(found))
        return
    if found.open_policy:
        around.out.print(table(_RULES, map(_rule_row, found.open_policy)))
    else:
        around.out.print("No rule: nobody may open a session.")
    around.say(
        f"Decision {found.number}, at block {found.height}. {found.operator_threshold} of "
        f"{len(found.operators)} operators change it."
    )


@policy.command("set")
def policy_set(
    context: typer.Context,
    rules: Annotated[
        str,
        typer.Argument(
            metavar="RULES",
            help='A JSON array of {"author": "sha256-…" or null, "kind": "", "prefix": ""}, @FILE '
            "or - for stdin. It replaces all rules.",
            show_default=False,
        ),
    ],
    key: KeyOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Replace the rules: a session may be opened when one of them matches."""
    around = surroundings.of(context)
    wanted = _read_rules(_bytes_of(around, rules))
    signer = _signer(around, home, key)
    now = _ask(around, home)
    if key_id(signer.key) not in now.operators:
        raise bad_use("The key is no operator's of this ledger: name another with --key.")
    control = Control(
        now.ledger_id,
        now.number + 1,
        now.height + VALID_BLOCKS,
        "OpenPolicyChanged",
        policy_fields(wanted),
    )
    record = sign_control(control, (signer,))
    if out is not None:
        with out.open("xb") as file:
            file.write(record)
        around.say(
            f"Signed by 1 of {now.operator_threshold}: the others run 'nocturne policy sign {out}',"
            f" then anyone 'nocturne policy submit {out}'."
        )
        return
    if now.operator_threshold > 1:
        raise bad_use(
            f"{now.operator_threshold} operators must sign: write the proposal with --out FILE, "
            "have the others run 'nocturne policy sign FILE', then 'nocturne policy submit FILE'."
        )
    _submit(around, home, record, as_json)


@policy.command("sign")
def policy_sign(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    key: KeyOption = None,
    home: HomeOption = None,
) -> None:
    """Show a proposal that another operator wrote, and add a signature to it."""
    around = surroundings.of(context)
    record = _read_record(file)
    control, _ = decode_control(record)
    around.out.print(f"Decision {control.number} of ledger {format_hash(control.ledger_id)}:")
    around.out.print(table(_RULES, map(_rule_row, policy_of(control))))
    signed = cosign_control(record, _signer(around, home, key))
    _replace(file, signed)
    signers = {one.key_id for one in decode_control(signed)[1]}
    around.say(f"Signed by {len(signers)}: 'nocturne policy submit {file}' brings it in.")


@policy.command("submit")
def policy_submit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring a signed proposal into the ledger."""
    around = surroundings.of(context)
    _submit(around, home, _read_record(file), as_json)


def _submit(around: Surroundings, home: Path | None, record: bytes, as_json: bool) -> None:
    async def submit() -> Governed:
        async with around.operate(around.home(home)) as operators:
            return await operators.submit(record)

    try:
        governed = asyncio.run(submit())
    except Malformed as fault:
        raise Failure(
            ExitCode.FAILED,
            f"The proposal is not valid ({fault}): 'nocturne policy show' says where the ledger "
            "stands.",
        ) from fault
    if as_json:
        around.emit({"height": governed.height, "blockDigest": format_hash(governed.digest)})
    else:
        around.out.print(
            Text.assemble(("✓ ", "green"), f"in block {governed.height}, in force from the next on")
        )


def _ask(around: Surroundings, home: Path | None) -> Governance:
    async def asked() -> Governance:
        async with around.operate(around.home(home)) as operators:
            return await operators.governance()

    return asyncio.run(asked())


def _signer(around: Surroundings, home: Path | None, key: Path | None) -> Signer:
    file = operator_key(around.home(home)) if key is None else key
    if not file.exists():
        raise bad_use(f"There is no operator's key in {file}: name one with --key FILE.")
    return load_signer(file)


def _bytes_of(around: Surroundings, argument: str) -> bytes:
    if argument == "-":
        return around.stdin(RULES_BYTES_MAX + 1)
    if not argument.startswith("@"):
        return argument.encode("utf-8", "surrogateescape")
    with Path(argument[1:]).open("rb") as file:
        return file.read(RULES_BYTES_MAX + 1)


def _read_rules(data: bytes) -> tuple[OpenRule, ...]:
    try:
        return parse_rules(data)
    except Malformed as fault:
        raise bad_use(
            f"RULES are none ({fault}): give a JSON array like "
            '[{"author": null, "kind": "facts", "prefix": "orders/"}].'
        ) from fault


def parse_rules(data: bytes) -> tuple[OpenRule, ...]:
    """Open rules as JSON; `Malformed` names the first that is none."""
    value = parse_json(data, RULES_BYTES_MAX, 2)
    if not isinstance(value, list):
        raise Malformed("expected an array")
    if len(value) > OPEN_RULES_MAX:
        raise Malformed(f"expected at most {OPEN_RULES_MAX} rules, got {len(value)}")
    return tuple(_parse_rule(f"rule {number}", one) for number, one in enumerate(value, 1))


def _parse_rule(where: str, value: JsonValue) -> OpenRule:
    if not isinstance(value, dict) or set(value) != {"author", "kind", "prefix"}:
        raise Malformed(f"{where}: expected author, kind and prefix")
    fields = Fields.of(value, where)
    author = None if value["author"] is None else AuthorId(fields.hash("author"))
    kind, prefix = fields.text("kind"), fields.text("prefix")
    if kind and not is_type_name(kind):
        raise Malformed(f"{where}: {kind[:80]!r} is no kind")
    if prefix and not is_session_id(prefix):
        raise Malformed(f"{where}: no session begins with {prefix[:80]!r}")
    return OpenRule(author, kind, prefix)


def _read_record(file: Path) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(CONTROL_BYTES_MAX + 1)
    try:
        control, _ = decode_control(data)
    except Malformed as fault:
        raise bad_use(
            f"{file} is no proposal ({fault}): 'policy set … --out' writes one."
        ) from fault
    if control.action != "OpenPolicyChanged":
        raise bad_use(f"{file} is a {control.action}: this changes open policies only.")
    return data


def _replace(file: Path, record: bytes) -> None:
    """Written beside it first: a signature that could not be written loses none that was."""
    fresh = file.with_name(f"{file.name}.signed")
    with fresh.open("xb") as opened:
        opened.write(record)
    fresh.replace(file)


def _governance_json(found: Governance) -> JsonValue:
    return {
        "number": found.number,
        "height": found.height,
        "openPolicy": [
            {
                "author": None if one.author is None else format_hash(one.author),
                "kind": one.kind,
                "prefix": one.prefix,
            }
            for one in found.open_policy
        ],
        "operators": [format_hash(one) for one in found.operators],
        "operatorThreshold": found.operator_threshold,
    }


def _rule_row(rule: OpenRule) -> list[str]:
    author = "anyone" if rule.author is None else format_hash(rule.author)
    return [author, rule.kind or "any", rule.prefix or "anything"]
