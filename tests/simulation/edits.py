"""How a bug gets into the code: a text of the source is replaced by another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nocturne

SOURCES: Final = Path(nocturne.__file__).parent


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` stands exactly once in `services/nocturne/<file>`."""

    file: str
    old: str
    new: str


class NotThere(Exception):  # noqa: N818
    """A bug's text is gone from the source: mend the list that the bug stands in."""


def edited(file: str, edits: Iterable[Edit]) -> str:
    """The source of `file` with those of the edits that are its own. `NotThere` as it says."""
    source = (SOURCES / file).read_text()
    for edit in edits:
        if edit.file != file:
            continue
        if source.count(edit.old) != 1:
            raise NotThere(f"{file} has {source.count(edit.old)} times: {edit.old}")
        source = source.replace(edit.old, edit.new)
    return source
