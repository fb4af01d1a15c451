"""The session kinds that this installation has, each with the hash of its code.

Rules: docs/spec/ledger.md, session kinds. Built-in kinds, and those that other packages offer under
the entry point group `nocturne.kinds`. A kind's code is the bytes of its module's source file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from nocturne.core.errors import NocturneError
from nocturne.core.genesis import Genesis, KindEntry
from nocturne.core.identifiers import Hash, format_hash
from nocturne.core.kinds import ENTRY_POINT_GROUP, Kind, KindRegistry, builtin_kinds, code_hash


class KindMissing(NocturneError):  # noqa: N818
    """The ledger has a session kind that this installation lacks, or has as other code."""


@dataclass(frozen=True, slots=True)
class InstalledKinds:
    """Kinds by name and version, and each one's code hash."""

    registry: KindRegistry
    entries: tuple[KindEntry, ...]


def builtin_entries() -> tuple[KindEntry, ...]:
    """The built-in kinds as a genesis lists them, by name."""
    return _entries(builtin_kinds().values())


def installed_kinds() -> InstalledKinds:
    """All kinds of this installation. `NocturneError` when one cannot be loaded."""
    kinds: list[Kind] = list(builtin_kinds().values())
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            kinds.append(point.load())
        except (ImportError, AttributeError) as fault:
            raise NocturneError(f"session kind {point.name}: cannot be loaded ({fault})") from fault
    return InstalledKinds(KindRegistry(kinds), _entries(kinds))


def check_kinds(genesis: Genesis, installed: InstalledKinds) -> None:
    """`KindMissing` unless every kind of the genesis is installed, as the same code."""
    have = {(entry.name, entry.version): entry.code_hash for entry in installed.entries}
    for entry in genesis.kinds:
        found = have.get((entry.name, entry.version))
        if found is None:
            raise KindMissing(
                f"session kind {entry.name} version {entry.version} is in the genesis of this "
                "ledger but not in this installation: install the release that has it"
            )
        if found != entry.code_hash:
            raise KindMissing(
                f"session kind {entry.name} version {entry.version}: the genesis asks for the "
                f"code {format_hash(entry.code_hash)}, this installation has {format_hash(found)}: "
                "install the release that the ledger was founded with"
            )


def _entries(kinds: Iterable[Kind]) -> tuple[KindEntry, ...]:
    return tuple(
        KindEntry(kind.name, kind.version, Hash(code_hash(_source_of(kind)))) for kind in kinds
    )


def _source_of(kind: Kind) -> bytes:
    module = type(kind).__module__
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise NocturneError(
            f"session kind {kind.name}: the source of its module {module} is not installed"
        )
    return Path(spec.origin).read_bytes()
