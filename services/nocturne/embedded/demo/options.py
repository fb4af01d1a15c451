"""What the caller of the demonstration chooses on its command line, wherever the ledger runs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.embedded.demo.scenario import COMMANDS_MIN

COMMANDS: Final = 5_000
SEED: Final = 20261121


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller chose."""

    commands: int
    seed: int
    report: Path
    keep: bool


def read_options(program: str, description: str, *, report: Path | None, keep: bool) -> Options:
    """Read the command line of `program`. Without a usual place for the report one must be named.
    Exits with 2 when it is wrong, as argparse does.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--commands", type=int, default=COMMANDS, help=f"at least {COMMANDS_MIN}")
    parser.add_argument("--seed", type=int, default=SEED, help="of the business case")
    parser.add_argument(
        "--report",
        type=Path,
        default=report,
        required=report is None,
        help="where the report goes",
    )
    chosen = parser.parse_args()
    if chosen.commands < COMMANDS_MIN:
        parser.error(f"--commands: expected at least {COMMANDS_MIN}, got {chosen.commands}")
    return Options(chosen.commands, chosen.seed, chosen.report, keep)
