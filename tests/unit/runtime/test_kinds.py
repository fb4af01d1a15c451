"""Session kinds of other packages: found, hashed, and held to the genesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_factory import BALANCES, make_genesis

import nocturne.core.kinds.facts
from nocturne.core.errors import NocturneError
from nocturne.core.genesis import Genesis, KindEntry
from nocturne.core.identifiers import Hash
from nocturne.core.kinds import KindRegistry, builtin_kinds, code_hash
from nocturne.core.kinds.facts import FACTS
from nocturne.embedded.ceremony import ensure
from nocturne.embedded.errors import EmbeddedError
from nocturne.runtime import kinds
from nocturne.runtime.kinds import InstalledKinds, KindMissing, builtin_entries, check_kinds


@dataclass(frozen=True)
class Point:
    """An entry point of some package."""

    load: Callable[[], Any]
    name: str = "balances"
    value: str = "some_package:KIND"


def offered(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    monkeypatch.setattr(kinds, "entry_points", lambda group: points)


def founded_with(*entries: KindEntry) -> Genesis:
    return replace(make_genesis(), kinds=entries)


def test_the_code_of_a_built_in_kind_is_its_module_file() -> None:
    entries = {entry.name: entry for entry in builtin_entries()}
    assert set(entries) == set(builtin_kinds())
    file = nocturne.core.kinds.facts.__file__
    assert file is not None
    assert entries["facts"].code_hash == code_hash(Path(file).read_bytes())
    assert len({entry.code_hash for entry in entries.values()}) == len(entries)


def test_a_kind_that_a_package_offers_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, Point(lambda: BALANCES))
    installed = kinds.installed_kinds()
    entry = next(one for one in installed.entries if one.name == "balances")
    assert entry.code_hash == code_hash(
        (Path(__file__).parents[2] / "ledger_factory.py").read_bytes()
    )
    assert [one.name for one in installed.entries] == [k.name for k in installed.registry.kinds()]
    check_kinds(founded_with(*installed.entries), installed)


def raising(fault: Exception) -> Callable[[], Any]:
    def load() -> Any:
        raise fault

    return load


@pytest.mark.parametrize(
    "load,told",
    [
        (raising(ImportError("no module x")), "ImportError: no module x"),
        (raising(AttributeError("no KIND")), "AttributeError: no KIND"),
        (raising(SyntaxError("odd")), "SyntaxError: odd"),
        (raising(ZeroDivisionError()), "ZeroDivisionError"),
        (lambda: None, "session kind None"),
        (lambda: type(BALANCES), "session kind Balances: expected an object, got its class"),
        (lambda: replace(BALANCES, version=0), "expected a version from 1"),  # type: ignore[type-var]
        (lambda: replace(FACTS), "expected one for facts version 1, got two"),
    ],
)
def test_an_offer_that_is_no_kind_is_one_sentence_with_the_way_out(
    load: Callable[[], Any], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offered(monkeypatch, Point(load))
    with pytest.raises(NocturneError, match="repair or remove the package") as fault:
        kinds.installed_kinds()
    assert told in str(fault.value)
    with pytest.raises(EmbeddedError, match="No ledger can run here"):
        ensure(tmp_path / "home", 1)


def test_a_genesis_asks_for_each_kind_as_the_same_code() -> None:
    installed = InstalledKinds(KindRegistry(builtin_kinds().values()), builtin_entries())
    check_kinds(founded_with(*installed.entries), installed)
    check_kinds(founded_with(), installed)
    facts = next(one for one in installed.entries if one.name == "facts")
    for entry, told in (
        (replace(facts, name="balances"), "balances version 1 is in the genesis of this ledger"),
        (replace(facts, version=2), "facts version 2 is in the genesis of this ledger"),
        (replace(facts, code_hash=Hash(bytes(32))), "the genesis asks for the code sha256-00"),
    ):
        with pytest.raises(KindMissing, match=told):
            check_kinds(founded_with(*installed.entries, entry), installed)


def test_a_reader_has_only_the_kinds_that_the_genesis_names_by_their_code() -> None:
    installed = InstalledKinds(KindRegistry(builtin_kinds().values()), builtin_entries())
    by_name = {one.name: one for one in installed.entries}
    genesis = founded_with(
        by_name["facts"], replace(by_name["text"], code_hash=Hash(bytes(32))), by_name["accounts"]
    )
    assert [kind.name for kind in installed.of(genesis).kinds()] == ["accounts", "facts"]


def test_a_home_is_founded_with_what_is_installed_and_runs_only_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(monkeypatch, Point(lambda: BALANCES))
    ensure(tmp_path, 1)
    ensure(tmp_path, 1)
    offered(monkeypatch)
    with pytest.raises(EmbeddedError, match="session kind balances version 1"):
        ensure(tmp_path, 1)
