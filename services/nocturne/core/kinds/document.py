"""The kind `document`, version 1: one JSON document, changed by merge patches (RFC 7396).

Rules: docs/spec/ledger.md, session kinds. No invariant, so validators read no payload and a sealed
one is welcome. The state is `{"document": {"a": 1}, "skipped": 0}`; it begins with an empty object.

An event is a patch if its content type is one of `PATCH_CONTENT_TYPES`, to the letter, and its
payload is JSON by `strict_json` within `PATCH_BYTES_MAX` and `PATCH_DEPTH_MAX`; its event type does
not matter. Any other event (sealed, of another type, not JSON) stands in the ledger all the same:
it leaves the document as it is and is counted in `skipped`. The ledger's own acts (`nocturne.…`)
are neither patches nor counted. No key is used, so every reader has the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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

PATCH_CONTENT_TYPES: Final = frozenset({"application/json", "application/merge-patch+json"})
PATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""Beyond any record a broker carries: the ledger's own limits are the ones that act."""
PATCH_DEPTH_MAX: Final = 64
"""Deeper than documents that people write, and shallow enough for any reader's stack."""


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON document under merge patches."""

    name: str = "document"
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
        """An empty object, nothing skipped."""
        return {"document": {}, "skipped": 0}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """The document patched; or, for an event that is no patch, one more skipped."""
        match state:
            case {"document": document, "skipped": int(skipped)}:
                pass
            case _:
                raise FoldError(
                    f"state of document at event {sequence}: expected document and skipped"
                )
        if event_type.startswith(ACT_PREFIX):
            return state
        if content_type not in PATCH_CONTENT_TYPES:
            return {"document": document, "skipped": skipped + 1}
        try:
            patch = parse_json(payload, PATCH_BYTES_MAX, PATCH_DEPTH_MAX)
        except Malformed:
            return {"document": document, "skipped": skipped + 1}
        return {"document": merge_patch(document, patch), "skipped": skipped}


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """`target` with `patch` applied; neither is changed. RFC 7396 §2."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), part)
    return merged


DOCUMENT: Final = Document()
