"""Many sessions at once: each record once and in its order, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, BOB
from tests.unit.cli.memory_ledger import MemoryLedger
from tests.vectors.synthetic import make_genesis

from nocturne.client.building import Author
from nocturne.client.results import Level
from nocturne.core.commands import Opening
from nocturne.core.errors import Unavailable
from nocturne.core.genesis import Limits
from nocturne.core.identifiers import SessionId
from nocturne.imports import drafts, into, many
from nocturne.imports.drafts import Draft, command_of
from nocturne.imports.into import Imported, ImportRefused
from nocturne.imports.many import Brought, ImportStopped, NoSuchKind, NotThisSource, bring_all
from nocturne.imports.records import CONTENT_TYPE, Record, SourceFault, record_name

Answer = TypeVar("Answer")


@dataclass
class Listed:
    """A source of records that are there, and of a fault behind them."""

    found: Sequence[Record]
    fault: SourceFault | None = None
    reads: int = 0

    def records(self) -> Generator[Record, None, None]:
        self.reads += 1
        yield from self.found
        if self.fault is not None:
            raise self.fault


def record(session: str, number: int) -> Record:
    payload = b'{"number":%d}' % number
    return Record(SessionId(session), "Counted", payload, number, f"line {number}")


def interleaved(sessions: int, each: int, seed: int = 7) -> list[Record]:
    order = [session for session in range(sessions) for _ in range(each)]
    random.Random(seed).shuffle(order)
    return [record(f"s/{session}", number) for number, session in enumerate(order)]


def run(
    ledger: MemoryLedger,
    source: Listed,
    deadline: float = 10,
    progress: Callable[[int], None] = lambda _: None,
) -> Brought:
    return finished(bring_all(ledger, source, "facts", Author.of(ALICE), progress, deadline))


def finished(work: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run(work)


def held(ledger: MemoryLedger) -> dict[str, list[bytes]]:
    return {
        session: [event.payload.data for event in events]
        for session, events in ledger.events_of.items()
    }


def expected(records: Sequence[Record]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for one in records:
        found.setdefault(one.session, []).append(one.payload)
    return found


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PAUSE_SECONDS", 0.0)


def test_every_record_is_in_its_session_in_the_order_of_the_source() -> None:
    ledger, records, told = MemoryLedger(), interleaved(9, 11), list[int]()
    assert run(ledger, Listed(records), progress=told.append) == Brought(99, 0, 9)
    assert held(ledger) == expected(records)
    assert told == list(range(1, 100))
    event = ledger.events_of["s/0"][0]
    assert (event.header.event_type, event.header.content_type) == ("Counted", "application/json")
    assert event.header.occurred_at == next(r.occurred_at for r in records if r.session == "s/0")


def test_a_second_run_writes_nothing_and_asks_the_log_nothing() -> None:
    ledger, records = MemoryLedger(), interleaved(5, 6)
    run(ledger, Listed(records))
    asked = len(ledger.commands)
    assert run(ledger, Listed(records)) == Brought(0, 30, 5)
    assert len(ledger.commands) == asked


def test_what_is_new_in_the_source_is_added() -> None:
    ledger, records = MemoryLedger(), interleaved(5, 6)
    run(ledger, Listed(records[:17]))
    assert run(ledger, Listed(records)) == Brought(13, 17, 5)
    assert held(ledger) == expected(records)


def test_a_source_that_says_less_than_is_there_is_all_there() -> None:
    ledger, records = MemoryLedger(), interleaved(3, 6)
    run(ledger, Listed(records))
    assert run(ledger, Listed(records[:8])).imported == 0
    assert held(ledger) == expected(records)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 30), max_size=4),
    st.lists(st.integers(0, 80), max_size=3),
    st.integers(2, 20),
)
def test_broken_and_lost_anywhere_gives_every_record_once(
    cuts: list[int], losses: list[int], window: int
) -> None:
    ledger = MemoryLedger(make_genesis(limits=Limits(id_window=window)))
    records = interleaved(4, 25)
    for cut in cuts:
        ledger.cut_after = cut
        run(ledger, Listed(records[: 20 * cut]))
    ledger.cut_after = None
    for loss in losses:
        ledger.lose_before = len(ledger.commands) + loss
        run(ledger, Listed(records))
    run(ledger, Listed(records))
    assert held(ledger) == expected(records)


def test_commands_lost_again_and_again_do_not_make_later_ids_stale() -> None:
    ledger = MemoryLedger(make_genesis(limits=Limits(id_window=8)))
    records = interleaved(1, 60)
    run(ledger, Listed(records[:10]))
    for _ in range(12):
        # Each run loses the first command that it sends, and gives up after that round.
        ledger.lose_before = len(ledger.commands)
        with pytest.raises((ImportRefused, Unavailable)):
            run(ledger, Listed(records), deadline=0)
    ledger.lose_before = None
    run(ledger, Listed(records))
    assert held(ledger) == expected(records)


def test_a_ledger_that_is_away_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, records = MemoryLedger(), interleaved(3, 10)
    ledger.unavailable = "away"
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def comes_back(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:
            ledger.unavailable = None
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", comes_back)
    assert run(ledger, Listed(records)).imported == 30
    assert held(ledger) == expected(records)


def test_a_ledger_that_stays_away_ends_it_and_says_that_it_can_go_on() -> None:
    ledger, records = MemoryLedger(), interleaved(3, 10)
    run(ledger, Listed(records[:5]))
    ledger.unavailable = "away"
    with pytest.raises(Unavailable, match="running the import again goes on there"):
        run(ledger, Listed(records), deadline=0.05)


def test_a_command_that_is_not_certified_in_time_is_asked_for_again() -> None:
    ledger, records = MemoryLedger(), interleaved(2, 5)
    ledger.level = Level.ACCEPTED
    with pytest.raises(Unavailable, match="not certified in time"):
        run(ledger, Listed(records), deadline=0)
    ledger.level = Level.SIGNED
    # They are in the log, and were decided after all.
    assert run(ledger, Listed(records)).sessions == 2
    assert held(ledger) == expected(records)


def test_a_fault_in_the_source_comes_after_all_that_stands_before_it() -> None:
    ledger, records = MemoryLedger(), interleaved(3, 50)
    fault = SourceFault("line 151", "this is no CSV.")
    with pytest.raises(ImportStopped) as caught:
        run(ledger, Listed(records, fault))
    assert caught.value.brought == Brought(150, 0, 3)
    assert str(caught.value) == "line 151: this is no CSV."
    assert held(ledger) == expected(records)
    more = [*records, *interleaved(3, 5, seed=8)]
    assert run(ledger, Listed(more)) == Brought(15, 150, 3)
    assert held(ledger) == expected(more)


def test_a_fault_waits_for_what_was_lost_before_it() -> None:
    ledger, records = MemoryLedger(), interleaved(3, 20)
    ledger.lose_before = 30
    with pytest.raises(ImportStopped) as caught:
        run(ledger, Listed(records, SourceFault("", "cut")))
    assert caught.value.brought.imported == 60
    assert held(ledger) == expected(records)


@pytest.mark.parametrize("changed", [0, 4, 9])
def test_a_session_that_holds_something_else_is_never_added_to(changed: int) -> None:
    ledger, records = MemoryLedger(), interleaved(1, 10)
    run(ledger, Listed(records))
    before = held(ledger)
    other = list(records)
    other[changed] = replace(other[changed], payload=b"{}")
    with pytest.raises(NotThisSource, match="not what the source says"):
        run(ledger, Listed([*other, record("s/0", 99)]))
    assert held(ledger) == before


def put(ledger: MemoryLedger, author: Author, record: Record, attempt: int, source: bytes) -> None:
    """The first event of a session, under the id that an import gives to another record."""
    draft = Draft(1, source, record.event_type, CONTENT_TYPE, record.payload, record.occurred_at)
    opening = Opening("facts", 1)
    signed = command_of(draft, ledger.ledger_id, record.session, opening, author, attempt)
    finished(ledger.submit(signed, Level.SIGNED, 1.0))
    assert len(ledger.events_of[record.session]) == 1


@pytest.mark.parametrize(
    "changes", [{"payload": b"{}"}, {"event_type": "Other"}, {"occurred_at": 9}]
)
def test_other_contents_under_the_ids_of_the_source_are_not_there_already(
    changes: dict[str, Any],
) -> None:
    ledger, mine = MemoryLedger(), record("s/0", 1)
    put(ledger, Author.of(BOB), replace(mine, **changes), 0, record_name(b"", mine))
    for records in ([mine], [mine, record("s/0", 2)]):
        with pytest.raises(NotThisSource, match="not what the source says"):
            run(ledger, Listed(records))
    assert len(ledger.events_of["s/0"]) == 1


def test_another_event_type_for_the_same_rows_is_another_source() -> None:
    ledger, records = MemoryLedger(), interleaved(1, 3)
    run(ledger, Listed(records))
    with pytest.raises(NotThisSource, match="import under another prefix"):
        run(ledger, Listed([replace(one, event_type="Other") for one in records]))


def test_ids_of_others_use_up_no_attempts_of_this_author() -> None:
    ledger, mine = MemoryLedger(), record("s/0", 1)
    put(ledger, Author.of(BOB), mine, drafts.ATTEMPTS_END - 1, record_name(b"", mine))
    # Bob did not let Alice in: the ledger says so, and there is an id to ask under.
    with pytest.raises(ImportRefused, match="NOT_A_MEMBER"):
        run(ledger, Listed([mine, record("s/0", 2)]))
    assert drafts.attempt_of(ledger.commands[-1].command.command_id) == 0


def test_when_all_attempts_are_used_up_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, mine = MemoryLedger(), record("s/0", 1)
    put(ledger, Author.of(ALICE), mine, drafts.ATTEMPTS_END - 1, record_name(b"", mine))
    # The last attempt still has ids; one lost command asks for the attempt after it.
    ledger.lose_before = len(ledger.commands)
    more = [mine, record("s/0", 2), record("s/0", 3)]
    with pytest.raises(ImportRefused, match="all 65536 attempts") as caught:
        run(ledger, Listed(more))
    assert caught.value.refused is None


def test_what_others_wrote_into_a_session_is_seen_before_anything_is_added() -> None:
    ledger, records = MemoryLedger(), interleaved(1, 6)
    run(ledger, Listed(records[:3]))
    foreign = Listed([*records[:3], record("s/0", 77)])
    run(ledger, foreign)
    with pytest.raises(NotThisSource):
        run(ledger, Listed(records))
    # All that the source says is there, and what came after is not its matter.
    assert run(ledger, Listed(records[:3])) == Brought(0, 3, 1)


def test_a_session_of_another_kind_is_left_alone() -> None:
    ledger, records = MemoryLedger(), interleaved(1, 3)
    finished(bring_all(ledger, Listed(records), "document", Author.of(ALICE)))
    with pytest.raises(NotThisSource, match="of kind document, not facts"):
        run(ledger, Listed(records))


def test_a_kind_that_the_ledger_lacks_is_named() -> None:
    with pytest.raises(NoSuchKind, match=r"no session kind 'poetry'; it has .*facts"):
        finished(bring_all(MemoryLedger(), Listed([]), "poetry", Author.of(ALICE)))


def test_a_session_of_somebody_else_is_refused_with_the_reason() -> None:
    ledger, records = MemoryLedger(), interleaved(1, 3)
    run(ledger, Listed(records[:1]))
    with pytest.raises(NotThisSource):
        # The same words of another author are not this import's, either.
        finished(bring_all(ledger, Listed([record("s/0", 5), *records]), "facts", Author.of(BOB)))
    with pytest.raises(ImportRefused) as caught:
        finished(bring_all(ledger, Listed(records), "facts", Author.of(BOB)))
    assert caught.value.refused.reason.name == "NOT_A_MEMBER"


def test_an_event_that_no_ledger_takes_is_named_by_its_place() -> None:
    ledger = MemoryLedger()
    large = replace(record("s/0", 2), payload=b'"' + b"x" * 300_000 + b'"')
    with pytest.raises(ImportStopped, match=r"^line 2: this event takes 300002 bytes"):
        run(ledger, Listed([record("s/0", 1), large]))
    assert len(ledger.events_of["s/0"]) == 1


def test_more_sessions_than_are_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "SESSIONS_MAX", 3)
    with pytest.raises(ImportStopped, match="more than 3 sessions"):
        run(MemoryLedger(), Listed([record(f"s/{n}", n) for n in range(5)]))


def test_an_empty_source_is_nothing_to_do() -> None:
    assert run(MemoryLedger(), Listed([])) == Brought(0, 0, 0)


def test_the_source_is_read_only_as_far_ahead_as_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(many, "IN_FLIGHT_MAX", 20)
    records = interleaved(60, 10)
    read = settled = ahead = 0

    class Counted(Listed):
        def records(self) -> Generator[Record, None, None]:
            nonlocal read, ahead
            for one in super().records():
                read += 1
                ahead = max(ahead, read - settled)
                yield one

    def told(count: int) -> None:
        nonlocal settled
        settled = count

    run(MemoryLedger(), Counted(records), progress=told)
    assert (read, settled) == (600, 600)
    assert ahead <= many.IN_FLIGHT_MAX + many.BATCH_RECORDS_MAX


def test_a_resumable_import_is_run_again_while_the_ledger_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(into, "AGAIN_SECONDS", 0.0)
    attempts = iter([[], [3, 4, 5], [5], [5, 7, 9]])
    told: list[int] = []

    async def attempt(progress: Callable[[int], None]) -> Imported:
        counts = next(attempts)
        for count in counts:
            progress(count)
        if counts[-1:] != [9]:
            raise Unavailable("away")
        return Imported(4, 5)

    done = finished(into.until_done(attempt, told.append, 10))
    # Two came by an attempt that broke off, four by the last one; three were there before.
    assert done == Imported(6, 3)
    assert told == [3, 4, 5, 5, 5, 7, 9]


def test_a_resumable_import_ends_when_nothing_comes_for_too_long() -> None:
    async def attempt(progress: Callable[[int], None]) -> Imported:
        progress(3)
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        finished(into.until_done(attempt, lambda _: None, 0))
