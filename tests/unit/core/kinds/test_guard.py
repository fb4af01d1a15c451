"""A plug-in says what it must of itself, and an answer that is none halts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.ledger_factory import Draft, Ledger

from nocturne.core.errors import Halt
from nocturne.core.kinds import (
    NO_CHANGES,
    FoldError,
    KindFault,
    KindRegistry,
    Violation,
    builtin_kinds,
)
from nocturne.core.kinds.facts import FACTS
from nocturne.core.kinds.guard import CHANGES_MAX, INVARIANTS_MAX, ITEM_BYTES_MAX, guarded

KEY = bytes(32)
EVENT = ("Seen", "application/json", b"{}", bytes(32), 7)


def answer_nothing(*arguments: Any) -> Any:
    return NO_CHANGES


@dataclass(frozen=True)
class Plugin:
    """A kind that answers whatever a test wants; takes the place of `balances`."""

    name: Any = "balances"
    version: Any = 1
    reads_payloads: Any = True
    invariants: Any = ("balances.some",)
    apply: Any = answer_nothing
    initial: Any = dict
    fold: Any = field(default=lambda state, *event: state)


def applied(answer: Callable[..., Any]) -> Any:
    return guarded(Plugin(apply=answer)).apply({}, *EVENT)


def raising(fault: BaseException) -> Callable[..., Any]:
    def answer(*arguments: Any) -> Any:
        raise fault

    return answer


def test_an_answer_by_the_contract_passes_as_it_is() -> None:
    changes = {KEY: b"x", bytes([1]) * 32: None}
    assert applied(lambda *_: changes) == changes
    assert applied(lambda *_: Violation("balances.some")) == Violation("balances.some")
    assert applied(answer_nothing) == {}


class Shifting(Mapping[bytes, Any]):
    """A mapping that tells something else each time it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __getitem__(self, key: bytes) -> Any:
        self.reads += 1
        return b"good" if self.reads == 1 else "bad"

    def __iter__(self) -> Iterator[bytes]:
        return iter([KEY])

    def __len__(self) -> int:
        return 1


def test_what_was_checked_is_what_is_used() -> None:
    assert applied(lambda *_: Shifting()) == {KEY: b"good"}


@pytest.mark.parametrize(
    "answer",
    [
        raising(ValueError("wrong")),
        raising(KeyError("x")),
        raising(RecursionError()),
        raising(AssertionError()),
        raising(SystemExit(0)),
        lambda *_: None,
        lambda *_: True,
        lambda *_: [],
        lambda *_: "balances.some",
        lambda *_: Violation("balances.other"),
        lambda *_: Violation("S1"),
        lambda *_: Violation(""),
        lambda *_: Violation("balances." + "x" * 200),
        lambda *_: Violation(None),  # type: ignore[arg-type]
        lambda *_: {b"short": b"x"},
        lambda *_: {"text": b"x"},
        lambda *_: {KEY: "text"},
        lambda *_: {KEY: 1},
        lambda *_: {KEY: bytearray(b"x")},
        lambda *_: {bytearray(32).hex(): b"x"},
        lambda *_: {KEY: bytes(ITEM_BYTES_MAX + 1)},
        lambda *_: {number.to_bytes(32, "big"): b"" for number in range(CHANGES_MAX + 1)},
    ],
)
def test_any_other_answer_of_apply_halts_with_the_kind_and_the_event(
    answer: Callable[..., Any],
) -> None:
    with pytest.raises(
        KindFault, match="session kind balances version 1: apply at event 7: expected"
    ) as told:
        applied(answer)
    assert isinstance(told.value, Halt)
    assert len(str(told.value)) < 400


def test_a_fault_without_words_halts_too() -> None:
    class Wordless:
        def __repr__(self) -> str:
            raise ValueError

    with pytest.raises(KindFault, match="got a Wordless"):
        applied(lambda *_: Wordless())


def test_a_fold_that_raises_is_a_fault_of_the_kind() -> None:
    broken = guarded(Plugin(fold=raising(ZeroDivisionError()), initial=raising(OSError())))
    with pytest.raises(KindFault, match="balances version 1: fold at event 7"):
        broken.fold({}, *EVENT)
    with pytest.raises(KindFault, match="balances version 1: initial"):
        broken.initial()


def test_a_foreign_state_and_want_of_memory_are_no_fault_of_the_kind() -> None:
    with pytest.raises(FoldError):
        guarded(Plugin(fold=raising(FoldError("foreign")))).fold({}, *EVENT)
    with pytest.raises(MemoryError):
        applied(raising(MemoryError()))


@pytest.mark.parametrize(
    "changes,told",
    [
        ({"name": ""}, "expected a type name"),
        ({"name": "a b"}, "expected a type name"),
        ({"name": "x" * 129}, "expected a type name"),
        ({"name": None}, "expected a type name"),
        ({"version": 0}, "expected a version from 1"),
        ({"version": True}, "expected a version from 1"),
        ({"version": 2**31}, "expected a version from 1"),
        ({"version": "1"}, "expected a version from 1"),
        ({"reads_payloads": 1}, "reads_payloads"),
        ({"reads_payloads": False}, "it must read payloads"),
        ({"invariants": ["balances.some"]}, "expected a tuple"),
        ({"invariants": "balances.some"}, "expected a tuple"),
        ({"invariants": ("balances.x",) * (INVARIANTS_MAX + 1)}, "expected a tuple"),
        ({"invariants": ("accounts.some",)}, "expected an invariant named balances.…"),
        ({"invariants": ("S1",)}, "expected an invariant named balances.…"),
        ({"invariants": ("balances." + "x" * 120,)}, "at most 128"),
        ({"invariants": ("balances.ä",)}, "expected an invariant named balances.…"),
        ({"invariants": ("balances.x\n",)}, "expected an invariant named balances.…"),
        ({"invariants": (1,)}, "expected an invariant named balances.…"),
        ({"apply": None}, "expected a method apply"),
        ({"fold": 1}, "expected a method fold"),
        ({"initial": {}}, "expected a method initial"),
    ],
)
def test_a_kind_that_says_something_else_of_itself_is_not_registered(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        KindRegistry([replace(Plugin(), **changes)])


@pytest.mark.parametrize("thing", [None, 1, "facts", object(), Plugin])
def test_what_is_no_kind_is_not_registered(thing: Any) -> None:
    with pytest.raises(ValueError, match="session kind"):
        KindRegistry([thing])


def test_a_name_of_an_invariant_may_be_as_long_as_a_receipt_carries() -> None:
    longest = "balances." + "x" * 119
    kind = guarded(Plugin(invariants=(longest,), apply=lambda *_: Violation(longest)))
    assert kind.apply({}, *EVENT) == Violation(longest)


def test_in_a_ledger_a_broken_kind_halts_execution_the_same_way_each_time() -> None:
    ledger = Ledger()
    ledger.answer(ledger.opening("s", Draft(data=b"a:+5"), kind="balances"))
    broken = Plugin(apply=raising(ValueError("of the plug-in")))
    registry = KindRegistry((*builtin_kinds().values(), broken))
    ledger.state = replace(ledger.state, view=replace(ledger.state.view, registry=registry))
    before = ledger.state.root_hash
    ledger.append(ledger.command("s", Draft(data=b"a:+1"), number=2))
    told = []
    for _ in range(2):
        with pytest.raises(Halt) as halt:
            ledger.commit()
        told.append(str(halt.value))
    contract = (
        "session kind balances version 1: apply at event 2: expected an answer by its contract"
    )
    assert set(told) == {f"{contract}, got ValueError: of the plug-in"}
    assert ledger.state.root_hash == before


def test_a_built_in_kind_answers_through_the_guard_as_it_does_itself() -> None:
    kind = guarded(FACTS)
    assert kind.apply({}, *EVENT) == {}
    assert kind.fold(kind.initial(), *EVENT) == FACTS.fold(FACTS.initial(), *EVENT)
