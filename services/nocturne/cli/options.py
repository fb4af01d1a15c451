"""Options and arguments that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from nocturne.cli.failures import bad_use
from nocturne.core.identifiers import SessionId, is_session_id

DEADLINE_SECONDS: Final = 20.0
DEADLINE_SECONDS_MAX: Final = 120.0
"""The command service waits no longer."""

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="The ledger's home: NOCTURNE_HOME or ~/.nocturne when not given.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON: lists are one object a line.")
]
DeadlineOption = Annotated[
    float,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        min=0.001,
        max=DEADLINE_SECONDS_MAX,
        help="Give up waiting after this long, exit code 3.",
    ),
]
SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", show_default=False)]


def session_id(text: str) -> SessionId:
    """SESSION as given; bad use if it cannot be one."""
    if not is_session_id(text):
        raise bad_use(
            f"{text[:140]!r} is no session id: use 1 to 128 of the letters, digits and . _ : / @ -."
        )
    return SessionId(text)
