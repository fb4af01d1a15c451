"""Run one command line: its exit code, and at most one sentence when it is not 0."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

import typer
from rich.text import Text
from typer.exceptions import TyperException
from typer.main import get_command

from nocturne.cli.app import app
from nocturne.cli.failures import ExitCode, Failure, as_failure
from nocturne.cli.screen import plain
from nocturne.cli.surroundings import Surroundings, real


def run_here() -> int:
    """Run this process's command line on this process's streams."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A ledger's text may hold what a terminal's encoding cannot say.
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:], real())
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _quiet_pipe()
    return code


def run(arguments: Sequence[str], around: Surroundings) -> int:
    """Run one command line and return its exit code; nothing is raised."""
    try:
        code = _command()(list(arguments), prog_name="nocturne", obj=around, standalone_mode=False)
    except TyperException as error:
        return _refuse(error, around)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        # So typer ends when nobody reads the output any more.
        if isinstance(end.__context__, BrokenPipeError):
            return _quiet_pipe()
        raise
    except Exception as error:
        return _show(as_failure(error), around)
    return code if isinstance(code, int) else ExitCode.OK


@cache
def _command() -> Callable[..., object]:
    """Every command with its options. Typer reads them from all functions' signatures, which takes
    longer than most commands do; what comes of it is the same for each command line.
    """
    return get_command(app)


def _refuse(error: TyperException, around: Surroundings) -> int:
    """The command line could not be read: what is wrong, and where help is."""
    context = getattr(error, "ctx", None)
    path = "nocturne" if context is None else context.command_path
    message = error.format_message().strip().replace("Value error, ", "")
    if message:
        mark = "" if message[-1] in ".!?" else "."
        return _show(Failure(ExitCode.BAD_USE, f"{message}{mark} See '{path} --help'."), around)
    return ExitCode.BAD_USE


def _show(failure: Failure, around: Surroundings) -> int:
    around.err.print(Text.assemble(("✗ ", "red"), plain(str(failure))))
    for line in failure.details:
        around.err.print(Text(f"  {plain(line)}", style="dim"))
    return failure.code


def _quiet_pipe() -> int:
    """Whoever read our output has had enough: that is their right, and no failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.OK
