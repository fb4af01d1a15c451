"""validators: how each validator is, whether there is a quorum, and who the validators are."""

from __future__ import annotations

from typing import Final

import typer

from nocturne.cli import surroundings, validator_changes
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.validators_view import quorum_text, validators_json, validators_parts

ANSWER_SECONDS_MAX: Final = 2.0
"""For each validator, all at once: who asks has been woken, and an answer takes milliseconds."""

validators = typer.Typer(
    help="Show how each validator is, and whether a quorum of them votes; change who they are."
)


@validators.callback(invoke_without_command=True)
def validators_show(
    context: typer.Context, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show how each validator is, and whether a quorum of them votes; change who they are."""
    if context.invoked_subcommand is not None:
        if as_json or home is not None:
            raise bad_use(f"Give options after the word: validators {context.invoked_subcommand} …")
        return
    around = surroundings.of(context)
    seen = around.validators(around.home(home), ANSWER_SECONDS_MAX)
    if as_json:
        around.emit(validators_json(seen))
    else:
        for part in validators_parts(seen):
            around.out.print(part)
    if not seen.quorum.reached:
        raise Failure(ExitCode.UNAVAILABLE, quorum_text(seen.quorum))


validators.command("sets")(validator_changes.validators_sets)
validators.command("new")(validator_changes.validators_new)
validators.command("add")(validator_changes.validators_add)
validators.command("remove")(validator_changes.validators_remove)
validators.command("rotate")(validator_changes.validators_rotate)
validators.command("sign")(validator_changes.validators_sign)
validators.command("submit")(validator_changes.validators_submit)
