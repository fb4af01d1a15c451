"""The kind `text`, version 1: one text, changed by patches of positions, lengths and strings.

Rules: docs/spec/ledger.md, session kinds. No invariant, so validators read no payload and a sealed
one is welcome. The state is `{"text": "Night", "skipped": 0}`; it begins with an empty text.

An event is an edit if its content type is `CONTENT_TYPE`, to the letter, and its payload is JSON by
`strict_json` of exactly this form; its event type does not matter:

    {"patches": [[0, 0, "Night"], [5, 0, "fall"]]}

Each patch says where, how much goes, and what comes instead; positions and lengths count Unicode
code points. Patches apply in order, each to what the one before left. If one lies outside the text,
or would make it longer than `TEXT_CHARACTERS_MAX`, the whole event leaves the text as it is. Such
an event, and any that is no edit, stands in the ledger all the same and is counted in `skipped`.
The ledger's own acts (`nocturne.…`) are neither edits nor counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from nocturne.core.errors import Malformed
from nocturne.core.kinds.kind import (
    ACT_PREFIX,
    NO_CHANGES,
    FoldError,
    KindChanges,
    KindItems,
    Violation,
)
from nocturne.core.strict_json import JsonValue, parse_json

CONTENT_TYPE: Final = "application/json"
EDIT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Beyond any record a broker carries: the ledger's own limits are the ones that act."""
EDIT_DEPTH_MAX: Final = 3
"""An object, its list of patches, a patch."""
TEXT_CHARACTERS_MAX: Final = 4 * 1024 * 1024
"""Several long books; printed as JSON, within one answer of the query service."""
PIECE_CHARACTERS: Final = 8192
"""An event of many patches changes pieces of about this length, not the whole text each time."""
WHOLE_PATCHES_MAX: Final = 4
"""Up to so many patches it is faster to copy the text than to cut it up and join it again."""

Patch: TypeAlias = tuple[int, int, str]
"""Position, how many code points go, what comes instead."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text under patches."""

    name: str = "text"
    version: int = 1
    reads_payloads: bool = False
    invariants: tuple[str, ...] = ()

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        """Any event may stand."""
        return NO_CHANGES

    def initial(self) -> JsonValue:
        """An empty text, nothing skipped."""
        return {"text": "", "skipped": 0}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """The text patched; or, for an event that is no edit of it, one more skipped."""
        match state:
            case {"text": str(text), "skipped": int(skipped)}:
                pass
            case _:
                raise FoldError(f"state of text at event {sequence}: expected text and skipped")
        if event_type.startswith(ACT_PREFIX):
            return state
        patches = read_patches(content_type, payload)
        patched = None if patches is None else patch_text(text, patches)
        if patched is None:
            return {"text": text, "skipped": skipped + 1}
        return {"text": patched, "skipped": skipped}


def read_patches(content_type: str, payload: bytes) -> Sequence[Patch] | None:
    """The patches of an event, None if it is no edit."""
    if content_type != CONTENT_TYPE:
        return None
    try:
        value = parse_json(payload, EDIT_BYTES_MAX, EDIT_DEPTH_MAX)
    except Malformed:
        return None
    match value:
        case {"patches": list(entries), **rest} if not rest:
            patches = [_patch(entry) for entry in entries]
            return None if None in patches else [one for one in patches if one is not None]
    return None


def _patch(entry: JsonValue) -> Patch | None:
    match entry:
        # True and False are no numbers, though Python counts them among its integers.
        case [int(position), int(deleted), str(inserted)] if (
            type(position) is int and type(deleted) is int and position >= 0 and deleted >= 0
        ):
            return position, deleted, inserted
    return None


def patch_text(text: str, patches: Sequence[Patch]) -> str | None:
    """`text` with all patches applied in order, None if one lies outside or makes it too long."""
    length = len(text)
    for position, deleted, inserted in patches:
        if position + deleted > length:
            return None
        length += len(inserted) - deleted
        if length > TEXT_CHARACTERS_MAX:
            return None
    if len(patches) <= WHOLE_PATCHES_MAX:
        for position, deleted, inserted in patches:
            text = text[:position] + inserted + text[position + deleted :]
        return text
    pieces = _cut(text)
    for patch in patches:
        _patch_pieces(pieces, patch)
    return "".join(pieces)


def _patch_pieces(pieces: list[str], patch: Patch) -> None:
    """Change the pieces that the patch touches: the time it takes does not grow with the text, but
    for passing over the pieces before it.
    """
    position, deleted, inserted = patch
    first = 0
    while first < len(pieces) and position > len(pieces[first]):
        position -= len(pieces[first])
        first += 1
    end, rest = first, position + deleted
    while end < len(pieces) and rest > len(pieces[end]):
        rest -= len(pieces[end])
        end += 1
    before = pieces[first][:position] if first < len(pieces) else ""
    after = pieces[end][rest:] if end < len(pieces) else ""
    pieces[first : end + 1] = _cut(before + inserted + after)


def _cut(text: str) -> list[str]:
    """Pieces of at most twice `PIECE_CHARACTERS`, none of them empty."""
    if len(text) <= 2 * PIECE_CHARACTERS:
        return [text] if text else []
    starts = range(0, len(text), PIECE_CHARACTERS)
    return [text[start : start + PIECE_CHARACTERS] for start in starts]


TEXT: Final = Text()
