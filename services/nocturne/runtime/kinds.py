"""The session kinds that this installation has, each with the hash of its code.

Rules: docs/spec/ledger.md, session kinds. Built-in kinds, and those that other packages offer under
the entry point group `nocturne.kinds`. A kind's code is the bytes of its module's source file.
Whoever executes or folds a ledger uses a kind only as the code that the ledger's genesis names.
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

    def of(self, genesis: Genesis) -> KindRegistry:
        """The kinds that are installed as the code the genesis asks for. A reader without one of
        them has no states of it; one with other code must not have other states.
        """
        wanted = set(genesis.kinds)
        return KindRegistry(
            kind
            for kind, entry in zip(self.registry.kinds(), self.entries, strict=True)
            if entry in wanted
        )


def builtin_entries() -> tuple[KindEntry, ...]:
    """The built-in kinds as a genesis lists them, by name."""
    return _entries(builtin_kinds().values())


def installed_kinds() -> InstalledKinds:
    """All kinds of this installation. `NocturneError` when one cannot be loaded or is none."""
    kinds: list[Kind] = list(builtin_kinds().values())
    for point in entry_points(group=ENTRY_POINT_GROUP):
        # An entry point runs a module of somebody else, which may raise whatever it likes.
        try:
            kinds.append(point.load())
        except Exception as fault:
            raise NocturneError(
                f"session kind {point.name} ({point.value}): cannot be loaded "
                f"({type(fault).__name__}: {fault}): repair or remove the package that offers it"
            ) from fault
    try:
        registry = KindRegistry(kinds)
    except ValueError as fault:
        raise NocturneError(
            f"{fault}: repair or remove the package that offers it under the entry point group "
            f"{ENTRY_POINT_GROUP}"
        ) from fault
    return InstalledKinds(registry, _entries(registry.kinds()))


def check_kinds(genesis: Genesis, installed: InstalledKinds) -> None:
    """`KindMissing` unless every kind of the genesis is installed, as the same code."""
    have = {(entry.name, entry.version): entry.code_hash for entry in installed.entries}
    for entry in genesis.kinds:
        found = have.get((entry.name, entry.version))
        if found is None:
            raise KindMissing(
                f"session kind {entry.name} version {entry.version} is in the genesis of this "
                "ledger but not in this installation: install the package that has it"
            )
        if found != entry.code_hash:
            raise KindMissing(
                f"session kind {entry.name} version {entry.version}: the genesis asks for the "
                f"code {format_hash(entry.code_hash)}, this installation has {format_hash(found)}: "
                "install the package in the release that the ledger was founded with"
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
