"""policy: who may open what; show it, change it, and sign a change that others proposed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import surroundings
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
from nocturne.cli.screen import Column, table
from nocturne.cli.surroundings import Surroundings
from nocturne.client.operating import Governance
from nocturne.core.control import decode_control
from nocturne.core.errors import Malformed
from nocturne.core.genesis import OpenRule
from nocturne.core.governing import OPEN_RULES_MAX, policy_fields, policy_of
from nocturne.core.identifiers import AuthorId, format_hash, is_session_id, is_type_name
from nocturne.core.json_fields import Fields
from nocturne.core.strict_json import JsonValue, parse_json

policy = typer.Typer(help="See and change who may open which sessions.", no_args_is_help=True)

RULES_BYTES_MAX: Final = 512 * 1024
_RULES: Final = (Column("author"), Column("kind"), Column("session begins with"))

_DECISION: Final = Decision("OpenPolicyChanged", "policy", "policy set", "policy show")


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
    signer = signer_of(around, home, key)
    now = _ask(around, home)
    check_operator(now, signer)
    record = _DECISION.propose(now, policy_fields(wanted), signer)
    if out is not None:
        _DECISION.hand_over(around, now, record, out)
        return
    _DECISION.check_alone(now)
    _submit(around, home, record, as_json)


@policy.command("sign")
def policy_sign(
    context: typer.Context,
    file: ProposalArgument,
    key: KeyOption = None,
    home: HomeOption = None,
) -> None:
    """Show a proposal that another operator wrote, and add a signature to it."""
    around = surroundings.of(context)
    record = _DECISION.read(file)
    control, _ = decode_control(record)
    around.out.print(f"Decision {control.number} of ledger {format_hash(control.ledger_id)}:")
    around.out.print(table(_RULES, map(_rule_row, policy_of(control))))
    _DECISION.sign(around, file, record, signer_of(around, home, key))


@policy.command("submit")
def policy_submit(
    context: typer.Context,
    file: ProposalArgument,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring a signed proposal into the ledger."""
    around = surroundings.of(context)
    _submit(around, home, _DECISION.read(file), as_json)


def _submit(around: Surroundings, home: Path | None, record: bytes, as_json: bool) -> None:
    governed = _DECISION.submit(around, home, record)
    if as_json:
        around.emit({"height": governed.height, "blockDigest": format_hash(governed.digest)})
    else:
        around.out.print(
            Text.assemble(("✓ ", "green"), f"in block {governed.height}, in force from the next on")
        )


def _ask(around: Surroundings, home: Path | None) -> Governance:
    return operating(around, home, lambda operators: operators.governance())


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
