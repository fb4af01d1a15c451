"""validators: how each validator is, and whether there is a quorum."""

from __future__ import annotations

from typing import Final

import typer

from nocturne.cli import surroundings
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.validators_view import quorum_text, validators_json, validators_parts

ANSWER_SECONDS_MAX: Final = 2.0
"""For each validator, all at once: who asks has been woken, and an answer takes milliseconds."""


def validators(
    context: typer.Context, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show how each validator is, and whether a quorum of them votes."""
    around = surroundings.of(context)
    seen = around.validators(around.home(home), ANSWER_SECONDS_MAX)
    if as_json:
        around.emit(validators_json(seen))
    else:
        for part in validators_parts(seen):
            around.out.print(part)
    if not seen.quorum.reached:
        raise Failure(ExitCode.UNAVAILABLE, quorum_text(seen.quorum))
