"""The client for programs without an event loop: one thread runs one, calls wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from nocturne.audit.verify import Verdict
from nocturne.client.building import Draft
from nocturne.client.client import Client
from nocturne.client.folding import Folded
from nocturne.client.results import Level, Result, Session, State, Status
from nocturne.client.sealing import SubjectKey, SubjectKeys
from nocturne.core.commands import Opening, SignedCommand
from nocturne.core.events import Event
from nocturne.core.kinds import Kind
from nocturne.core.receipts import Receipt
from nocturne.core.strict_json import JsonValue

Value = TypeVar("Value")


class SyncClient:
    """As `Client`, of which it takes a new one, not entered; each call waits for its answer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> SyncClient:
        self._thread.start()
        self._wait(self._client.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait(self._client.__aexit__(kind, error, trace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def json(self, event_type: str, value: JsonValue) -> Draft:
        """See `Client.json`."""
        return self._client.json(event_type, value)

    def data(self, event_type: str, data: bytes, content_type: str) -> Draft:
        """See `Client.data`."""
        return self._client.data(event_type, data, content_type)

    def build(
        self,
        session: str,
        drafts: Sequence[Draft],
        *,
        opening: Opening | None = None,
        expected_sequence: int | None = None,
        seal: SubjectKey | None = None,
    ) -> SignedCommand:
        """See `Client.build`."""
        return self._wait(
            self._client.build(
                session, drafts, opening=opening, expected_sequence=expected_sequence, seal=seal
            )
        )

    def append(
        self,
        session: str,
        drafts: Sequence[Draft],
        *,
        opening: Opening | None = None,
        expected_sequence: int | None = None,
        seal: SubjectKey | None = None,
        wait: Level = Level.SIGNED,
        deadline_seconds: float | None = None,
        prove: bool = False,
    ) -> Result:
        """See `Client.append`."""
        return self._wait(
            self._client.append(
                session,
                drafts,
                opening=opening,
                expected_sequence=expected_sequence,
                seal=seal,
                wait=wait,
                deadline_seconds=deadline_seconds,
                prove=prove,
            )
        )

    def submit(
        self,
        signed: SignedCommand,
        *,
        wait: Level = Level.SIGNED,
        deadline_seconds: float | None = None,
        prove: bool = False,
    ) -> Result:
        """See `Client.submit`."""
        return self._wait(
            self._client.submit(signed, wait=wait, deadline_seconds=deadline_seconds, prove=prove)
        )

    def submit_many(
        self,
        commands: Iterable[SignedCommand],
        *,
        wait: Level = Level.SIGNED,
        deadline_seconds: float | None = None,
    ) -> Iterator[tuple[SignedCommand, Result]]:
        """See `Client.submit_many`. `commands` is iterated in the client's own thread."""
        return self._each(
            self._client.submit_many(commands, wait=wait, deadline_seconds=deadline_seconds)
        )

    def session(self, session: str) -> Session | None:
        """See `Client.session`."""
        return self._wait(self._client.session(session))

    def sessions(self, prefix: str = "") -> Iterator[Session]:
        """See `Client.sessions`."""
        return self._each(self._client.sessions(prefix))

    def events(
        self, session: str, from_sequence: int = 1, *, follow: bool = False
    ) -> Iterator[Event]:
        """See `Client.events`."""
        return self._each(self._client.events(session, from_sequence, follow=follow))

    def receipts(
        self, session: str | None = None, claimed: bool | None = None
    ) -> Iterator[Receipt]:
        """See `Client.receipts`."""
        return self._each(self._client.receipts(session, claimed))

    def state(self, session: str, at_sequence: int = 0) -> State | None:
        """See `Client.state`."""
        return self._wait(self._client.state(session, at_sequence))

    def fold(self, session: str, kind: Kind, keys: SubjectKeys, at_sequence: int = 0) -> Folded:
        """See `Client.fold`."""
        return self._wait(self._client.fold(session, kind, keys, at_sequence))

    def outcome(self, signed: SignedCommand) -> Result | None:
        """See `Client.outcome`."""
        return self._wait(self._client.outcome(signed))

    def export(self, session: str, path: Path) -> Verdict:
        """See `Client.export`."""
        return self._wait(self._client.export(session, path))

    def readable(self, height: int, seconds: float | None = None) -> None:
        """See `Client.readable`."""
        self._wait(self._client.readable(height, seconds))

    def status(self) -> Status:
        """See `Client.status`."""
        return self._wait(self._client.status())

    def _wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _each(self, values: AsyncIterator[Value]) -> Iterator[Value]:
        try:
            while True:
                try:
                    yield self._wait(_next(values))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(_close(values))


async def _next(values: AsyncIterator[Value]) -> Value:
    return await anext(values)


async def _close(values: Any) -> None:
    await values.aclose()
