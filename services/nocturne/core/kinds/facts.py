"""The kind `facts`, version 1: an append-only list of facts, each meaning only itself.

Rules: docs/spec/ledger.md, session kinds. No invariant, so validators read no payload. The facts
are the events themselves; the state says how many there are: `{"facts": 3, "types": {"Seen": 3}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nocturne.core.kinds.kind import NO_CHANGES, FoldError, KindChanges, KindItems, Violation
from nocturne.core.strict_json import JsonValue


@dataclass(frozen=True, slots=True)
class Facts:
    """Append-only facts."""

    name: str = "facts"
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
        """No facts."""
        return {"facts": 0, "types": {}}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """One fact more, counted under its event type, whatever its payload."""
        match state:
            case {"facts": int(facts), "types": dict(types)}:
                count = types.get(event_type, 0)
                if isinstance(count, int):
                    return {"facts": facts + 1, "types": {**types, event_type: count + 1}}
        raise FoldError(f"state of facts at event {sequence}: expected facts and types")


FACTS: Final = Facts()
