"""What a session kind is: the meaning of a session's events, as a plug-in of two halves.

Rules: docs/spec/ledger.md, session kinds. The validators' half decides whether an event may stand
(`apply`); it costs nothing for a kind without an invariant. The readers' half turns the events
that stand into a state (`fold`). Both are pure functions: no clock, no dice, no floats in what is
hashed, no order but the one given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from nocturne.core.errors import Malformed
from nocturne.core.strict_json import JsonValue


class FoldError(Malformed):
    """What `fold` was given as a state is none of this kind; never raised for an event."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An event may not stand: one of the kind's `invariants`, as `accounts.non_negative`."""

    invariant: str


class KindItems(Protocol):
    """The items of one session that the kind's invariants read; a `SparseTree[bytes]` is one."""

    def get(self, key: bytes, /) -> bytes | None:
        """The item under a key of 32 bytes, None if there is none."""


KindChanges: TypeAlias = Mapping[bytes, bytes | None]
"""Items to set, by keys of 32 bytes; None takes an item out."""

NO_CHANGES: KindChanges = {}

ACT_PREFIX: Final = "nocturne."
"""Event types of the ledger's own acts: validators do not ask the kind, readers fold them too."""


class Kind(Protocol):
    """One kind in one version. A session pins both when it opens, so a version never changes."""

    @property
    def name(self) -> str:
        """1 to 128 of `[A-Za-z0-9._:/-]`."""

    @property
    def version(self) -> int:
        """From 1; any change of meaning is a new version."""

    @property
    def reads_payloads(self) -> bool:
        """Validators read payloads of this kind: a sealed one is refused."""

    @property
    def invariants(self) -> tuple[str, ...]:
        """Every invariant that `apply` may name, each the kind's name, a dot, and its own; 1 to 128
        of `[A-Za-z0-9._:/-]` in all, for receipts carry it.
        """

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        """Validators: what the event changes in the items, or the invariant it would break.

        Called for every event that is no act and not sealed, if `reads_payloads`, with the items as
        the events before it left them. `author` is an author id of 32 bytes. Whatever the payload,
        it answers: an exception halts every validator of the ledger.
        """

    def initial(self) -> JsonValue:
        """Readers: the state before the first event."""

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """Readers: the state after one more event; `state` itself stays as it is.

        Every event in the ledger has a fold: one that means nothing to the kind changes what the
        kind's own rule says, the same for every reader. `FoldError` only for a foreign `state`.
        """
