"""Ask before something that nobody can undo."""

from __future__ import annotations

from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.surroundings import Surroundings


def confirm(around: Surroundings, what: str, is_sure: bool) -> None:
    """Go on only if the person said so, by `--yes` or when asked. `what` is whole sentences."""
    if is_sure:
        return
    answer = around.answer(f"{what} Type yes to go on: ")
    if answer is None:
        raise bad_use(f"{what} Say --yes to do it where nobody can be asked.")
    if answer.strip() != "yes":
        raise Failure(ExitCode.FAILED, "Nothing was changed: the answer was not yes.")
