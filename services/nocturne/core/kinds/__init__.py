"""Session kinds as plug-ins: which there are, and which code they are.

Rules: docs/spec/ledger.md, session kinds. A ledger names its kinds by (name, version, code hash)
in its genesis; a validator that lacks one, or has other code for it, does not start. Kinds of
other packages are found through the entry points of `ENTRY_POINT_GROUP` by the process that
starts; nothing here loads anything. Whoever asks the registry gets a kind guarded: one that answers
what is no answer stops the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from nocturne.core.kinds.accounts import ACCOUNTS
from nocturne.core.kinds.document import DOCUMENT
from nocturne.core.kinds.facts import FACTS
from nocturne.core.kinds.guard import GuardedKind, KindFault, guarded
from nocturne.core.kinds.kind import (
    NO_CHANGES,
    FoldError,
    Kind,
    KindChanges,
    KindItems,
    Violation,
)
from nocturne.core.kinds.orderbook import ORDERBOOK
from nocturne.core.kinds.proposals import PROPOSALS
from nocturne.core.kinds.text import TEXT

__all__ = [
    "ENTRY_POINT_GROUP",
    "NO_CHANGES",
    "FoldError",
    "Kind",
    "KindChanges",
    "KindFault",
    "KindItems",
    "KindRegistry",
    "Violation",
    "builtin_kinds",
    "code_hash",
]

ENTRY_POINT_GROUP: Final = "nocturne.kinds"
"""Each entry point of this group names an object that is a `Kind`."""

_BUILTIN: Final[Mapping[str, Kind]] = MappingProxyType(
    {kind.name: kind for kind in (ACCOUNTS, DOCUMENT, FACTS, ORDERBOOK, PROPOSALS, TEXT)}
)


class KindRegistry:
    """The kinds a process has, by name and version; fixed once made."""

    __slots__ = ("_kinds",)

    def __init__(self, kinds: Iterable[Kind]) -> None:
        """`ValueError` if one is no kind, or two claim one name and version: which was meant cannot
        be known.
        """
        self._kinds: dict[tuple[str, int], GuardedKind] = {}
        for kind in map(guarded, kinds):
            if self._kinds.setdefault((kind.name, kind.version), kind) is not kind:
                raise ValueError(
                    f"kinds: expected one for {kind.name} version {kind.version}, got two"
                )

    def get(self, name: str, version: int) -> Kind | None:
        """The kind of exactly this name and version, guarded; None if this process lacks it."""
        return self._kinds.get((name, version))

    def kinds(self) -> tuple[Kind, ...]:
        """All kinds as they were given, by name, then version."""
        entries = sorted(self._kinds.items(), key=lambda entry: entry[0])
        return tuple(guard.kind for _, guard in entries)


def builtin_kinds() -> Mapping[str, Kind]:
    """The kinds that come with Nocturne, by name, each in its newest version."""
    return _BUILTIN


def code_hash(source: bytes) -> bytes:
    """SHA-256 of the bytes of the kind's module file, which the caller has read."""
    return sha256(source).digest()
