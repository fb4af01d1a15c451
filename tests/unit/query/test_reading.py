"""Folds, pages and exports over the read model of a chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import grpc
import pytest
from tests.ledger_factory import Draft
from tests.unit.projection.chains import Chain, changed_validators, every_outcome
from tests.unit.query.read_model import ReadModel

from nocturne.audit.verify import verify_export
from nocturne.core.exports import ValidatorsLine, parse_line
from nocturne.core.identifiers import LEDGER_SESSION, SessionId, session_key
from nocturne.core.kinds import NO_CHANGES, KindChanges, KindRegistry, builtin_kinds
from nocturne.core.kinds.facts import FACTS
from nocturne.core.sparse_tree import root_from_proof
from nocturne.core.strict_json import JsonValue
from nocturne.query import folds, reading
from nocturne.query.folds import FoldCache
from nocturne.query.reading import EventPage, EventPages, Exporter, States
from nocturne.query.refusals import Refused
from nocturne.query.state_tree import StateAltered, StateTrees
from nocturne.runtime.settings import Founding

ORDERS = SessionId("orders/1")
REGISTRY = KindRegistry(builtin_kinds().values())


@cache
def chain() -> Chain:
    made = every_outcome()
    made.grow(6, seed=5)
    return made


def model(made: Chain | None = None) -> ReadModel:
    made = chain() if made is None else made
    return ReadModel(made, len(made.published))


def exporter(of: ReadModel) -> Exporter:
    ledger = of.made.ledger
    founding = Founding(ledger.genesis_bytes, ledger.genesis, ledger.ledger_id)
    return Exporter(of.store, StateTrees(of.store), founding)


async def lines(of: ReadModel, session: str) -> list[bytes]:
    return [line async for line in exporter(of).lines(SessionId(session))]


@pytest.mark.parametrize("session", ["orders/1", "readings", "grown/1", "grown/2", "~ledger"])
@pytest.mark.parametrize("page", [1, 3, 500])
def test_an_export_verifies_whatever_the_pages_are(
    session: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_EVENTS_FIRST", page)
    monkeypatch.setattr(reading, "PAGE_EVENTS_MAX", page)
    monkeypatch.setattr(reading, "EXPORT_RECEIPTS_PER_PAGE", page)
    of = model()
    ledger = of.made.ledger
    verdict = verify_export(asyncio.run(lines(of, session)), ledger.ledger_id)
    assert verdict.holds, verdict.sentence
    state = ledger.state.session(SessionId(session))
    assert state is not None
    assert (verdict.events, verdict.receipts) == (state.sequence, state.receipts.size)


def test_an_export_shows_the_changes_of_the_validators_before_its_blocks() -> None:
    of = model(changed_validators())
    ledger = of.made.ledger
    exported = asyncio.run(lines(of, "orders/1"))
    verdict = verify_export(exported, ledger.ledger_id)
    assert verdict.holds, verdict.sentence
    assert verdict.events == 8
    shown = [parse_line(line) for line in exported]
    assert [one.first_epoch for one in shown if isinstance(one, ValidatorsLine)] == [2, 3]
    # A block that shows one is taken out of the read model.
    del of.blocks[4]
    with pytest.raises(Refused) as refused:
        asyncio.run(lines(of, "orders/1"))
    assert refused.value.code is grpc.StatusCode.DATA_LOSS


def test_there_is_no_export_of_what_was_never_opened() -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(lines(model(), "never/opened"))
    assert refused.value.code is grpc.StatusCode.NOT_FOUND


def test_a_state_is_folded_once_and_then_from_the_nearest() -> None:
    made = Chain()
    ledger = made.ledger
    ledger.append(ledger.opening("doc", Draft("Set", b"{}"), number=1, kind="document"))
    for number in range(2, 32):
        data = b'{"n":%d,"k%d":1}' % (number, number)
        ledger.append(ledger.command("doc", Draft("Set", data), number=number))
    made.commit()
    of = model(made)
    states = States(of.store, REGISTRY, FoldCache())

    async def asked(sequence: int) -> tuple[dict[str, object], int, int]:
        before = of.reads
        folded, _ = await states.at(SessionId("doc"), sequence)
        return json.loads(folded.state_json)["document"], folded.sequence, of.reads - before

    async def ask() -> None:
        document, sequence, _ = await asked(20)
        assert (document["n"], sequence) == (20, 20)
        assert (await asked(20))[2] == 0
        document, _, reads = await asked(21)
        assert (document["n"], reads) == (21, 1)
        document, sequence, _ = await asked(0)
        assert (document["n"], sequence) == (31, 31)
        document, _, _ = await asked(5)
        assert document == {"n": 5, "k2": 1, "k3": 1, "k4": 1, "k5": 1}
        head = of.events["doc"][4].event_hash
        assert (await states.at(SessionId("doc"), 5))[0].head_hash == head

    asyncio.run(ask())


def test_a_state_past_the_head_or_without_a_fold_is_refused() -> None:
    of = model()
    states = States(of.store, REGISTRY, FoldCache())
    with pytest.raises(Refused) as refused:
        asyncio.run(states.at(ORDERS, 999))
    assert refused.value.code is grpc.StatusCode.OUT_OF_RANGE
    with pytest.raises(Refused) as refused:
        asyncio.run(states.at(LEDGER_SESSION, 0))
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


def documents(events: int) -> Chain:
    made = Chain()
    ledger = made.ledger
    ledger.append(ledger.opening("doc", Draft("Set", b"{}"), number=1, kind="document"))
    for number in range(2, events + 1):
        ledger.append(ledger.command("doc", Draft("Set", b'{"n":%d}' % number), number=number))
    made.commit()
    return made


def test_a_long_fold_leaves_states_behind_so_that_none_begins_at_0_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folds, "CHECKPOINT_EVENTS", 10)
    monkeypatch.setattr(reading, "PAGE_EVENTS_FIRST", 10)
    of = model(documents(55))
    states = States(of.store, REGISTRY, FoldCache())

    async def ask() -> None:
        await states.at(SessionId("doc"), 0)
        for sequence in (9, 10, 25, 49, 54):
            before = of.reads
            folded, _ = await states.at(SessionId("doc"), sequence)
            assert folded.state == {"document": {"n": sequence}, "skipped": 0}
            assert of.reads - before <= 1

    asyncio.run(ask())


def test_questions_at_once_for_one_state_fold_it_once() -> None:
    of = model(documents(40))
    states = States(of.store, REGISTRY, FoldCache())

    async def ask() -> int:
        answers = await asyncio.gather(*(states.at(SessionId("doc"), 0) for _ in range(8)))
        assert {id(folded) for folded, _ in answers} == {id(answers[0][0])}
        return of.reads

    assert asyncio.run(ask()) == 1


@dataclass(frozen=True)
class Broken:
    """A kind in the place of `document` whose fold does not hold."""

    answer: Callable[[], Any]
    name: str = "document"
    version: int = 1
    reads_payloads: bool = False
    invariants: tuple[str, ...] = ()

    def apply(self, *event: Any) -> KindChanges:
        return NO_CHANGES

    def initial(self) -> JsonValue:
        return 0

    def fold(self, state: JsonValue, *event: Any) -> JsonValue:
        folded: JsonValue = self.answer()
        return folded


@pytest.mark.parametrize("answer", [lambda: 1 // 0, lambda: {1, 2}, lambda: float("nan")])
def test_a_kind_that_breaks_its_contract_has_no_state_and_stops_nobody(
    answer: Callable[[], Any],
) -> None:
    of = model(documents(3))
    states = States(of.store, KindRegistry([Broken(answer), FACTS]), FoldCache())
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            asyncio.run(states.at(SessionId("doc"), 0))
        assert refused.value.code is grpc.StatusCode.INTERNAL


def test_a_missing_event_is_data_loss_not_a_wrong_state() -> None:
    of = model()
    del of.events[ORDERS][2]
    with pytest.raises(Refused) as refused:
        asyncio.run(States(of.store, REGISTRY, FoldCache()).at(ORDERS, 0))
    assert refused.value.code is grpc.StatusCode.DATA_LOSS


def test_pages_hold_about_a_megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    of = model()
    monkeypatch.setattr(reading, "PAGE_EVENTS_FIRST", 2)
    monkeypatch.setattr(reading, "PAGE_BYTES", 4000)

    async def sizes() -> list[int]:
        pages = EventPages(of.store, ORDERS, 1, None)
        found = []
        while rows := (await pages.read()).rows:
            found.append(len(rows))
        return found

    found = asyncio.run(sizes())
    assert sum(found) == 5
    assert found[0] == 2
    assert max(found[1:]) <= 4


def test_the_tree_kept_up_by_changes_is_the_tree_read_whole() -> None:
    made = Chain()
    made.grow(2, seed=1)
    of = ReadModel(made, 2)
    trees = StateTrees(of.store)

    async def follow() -> None:
        await trees.newest()
        made.grow(5, seed=2)
        later = ReadModel(made, 7)
        of.made, of.blocks, of.changes, of.height = made, later.blocks, later.changes, 7
        height, tree = await trees.newest()
        assert (height, tree.root_hash) == (7, made.ledger.state.root_hash)
        _, whole = await StateTrees(of.store).newest()
        assert whole.root_hash == tree.root_hash
        key = session_key(made.ledger.ledger_id, SessionId("never/opened"))
        assert root_from_proof(key, tree.prove(key)) == (tree.root_hash, None)

    asyncio.run(follow())


def test_changes_that_somebody_altered_are_noticed() -> None:
    made = Chain()
    made.grow(2, seed=1)
    of = ReadModel(made, 2)
    trees = StateTrees(of.store)

    async def follow() -> None:
        await trees.newest()
        made.grow(1, seed=2)
        later = ReadModel(made, 3)
        of.made, of.blocks, of.height = made, later.blocks, 3
        height, packed = later.changes[2]
        of.changes = [*later.changes[:2], (height, packed[:-1] + bytes([packed[-1] ^ 1]))]
        with pytest.raises(StateAltered):
            await trees.newest()

    asyncio.run(follow())


def test_a_state_of_another_read_model_is_folded_again() -> None:
    of = model()
    states = States(of.store, REGISTRY, FoldCache())
    right, _ = asyncio.run(states.at(ORDERS, 0))
    genuine = of.events["orders/1"]
    of.events["orders/1"] = [*genuine[:-1], replace(genuine[-2], sequence=len(genuine))]
    altered = States(of.store, REGISTRY, FoldCache())
    wrong, _ = asyncio.run(altered.at(ORDERS, 0))
    assert wrong.state != right.state
    of.events["orders/1"] = genuine
    assert asyncio.run(altered.at(ORDERS, 0))[0].state == wrong.state
    of.number += 1
    assert asyncio.run(altered.at(ORDERS, 0))[0].state == right.state


def test_a_fold_that_an_exchange_interrupts_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE_EVENTS_FIRST", 1)
    monkeypatch.setattr(reading, "PAGE_EVENTS_MAX", 1)
    of = model()
    right, _ = asyncio.run(States(of.store, REGISTRY, FoldCache()).at(ORDERS, 0))
    pages = EventPages.read
    exchanged = [2]

    async def read(self: EventPages, limit: int) -> EventPage:
        page = await pages(self, limit)
        if exchanged and of.reads >= exchanged[0]:
            exchanged.pop()
            of.number += 1
        return page

    monkeypatch.setattr(EventPages, "read", read)
    of.reads = 0
    found, _ = asyncio.run(States(of.store, REGISTRY, FoldCache()).at(ORDERS, 0))
    assert found.state == right.state
    assert exchanged == []
    assert of.reads > len(of.events["orders/1"])
