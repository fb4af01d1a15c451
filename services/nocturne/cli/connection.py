"""The ledger of a home, reached with the SDK. What cannot be had is a sentence that says why."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from nocturne.audit.verify import Verdict
from nocturne.cli import trust
from nocturne.cli.deployment import COMMAND, CONTROL, QUERY, Deployment, needed
from nocturne.cli.ledger import Ledger, Operators
from nocturne.cli.trust import Founding
from nocturne.client import (
    AccessDenied,
    Client,
    Level,
    Result,
    Session,
    State,
    Status,
    TlsRefused,
    Unavailable,
)
from nocturne.client.operating import Governance, Governed, LogStands, OperatorClient
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.receipts import Receipt
from nocturne.embedded import lock
from nocturne.embedded import status as statuses
from nocturne.embedded.home import Home

_NEEDED: Final = frozenset({"command", "query"})


@asynccontextmanager
async def connect(home: Home, deadline_seconds: float) -> AsyncGenerator[Ledger, None]:
    """The ledger that runs on `home`; `Unavailable` when none does."""
    founding = trust.founding_of(home)
    found = statuses.read(home.status)
    names = {service.name for service in found.services}
    if founding is None or lock.holder(home.lock) is None or not names >= _NEEDED:
        raise Unavailable(f"Nothing runs in {home.root}: 'nocturne up --detach' starts it.")
    async with Client(
        found.address("command"),
        found.address("query"),
        genesis=founding.data,
        deadline_seconds=deadline_seconds,
    ) as client:
        yield Remote(founding, client)


@asynccontextmanager
async def operate(home: Home) -> AsyncGenerator[Operators, None]:
    """The validators that run on `home`; `Unavailable` when none does."""
    founding = trust.founding_of(home)
    found = statuses.read(home.status)
    if founding is None or lock.holder(home.lock) is None or not found.services:
        raise Unavailable(f"Nothing runs in {home.root}: 'nocturne up --detach' starts it.")
    addresses = tuple(map(found.address, statuses.validators_in(found)))
    async with OperatorClient(addresses, founding.ledger_id) as operators:
        yield RemoteOperators(operators)


@asynccontextmanager
async def connect_to(
    deployment: Deployment, deadline_seconds: float
) -> AsyncGenerator[Ledger, None]:
    """The ledger of a deployment; its genesis is fetched when only its id is trusted."""
    async with Client(
        deployment.command,
        needed(deployment.query, QUERY),
        ledger_id=deployment.ledger_id,
        genesis=deployment.genesis,
        credentials=deployment.credentials,
        deadline_seconds=deadline_seconds,
    ) as client:
        with _ways_out():
            ledger = await client.ledger()
        founding = Founding(ledger.genesis_bytes, ledger.genesis, ledger.ledger_id)
        yield Remote(founding, client, writes=deployment.command is not None)


@asynccontextmanager
async def operate_on(deployment: Deployment) -> AsyncGenerator[Operators, None]:
    """The validators of a deployment."""
    async with OperatorClient(
        needed(deployment.control, CONTROL), deployment.ledger_id, deployment.credentials
    ) as operators:
        yield RemoteOperators(operators)


class RemoteOperators:
    """`Operators` behind an SDK client."""

    def __init__(self, client: OperatorClient) -> None:
        self._client = client

    async def governance(self) -> Governance:
        """What was decided so far."""
        with _ways_out():
            return await self._client.governance()

    async def agreed_governance(self) -> Governance:
        """What was decided so far, as more validators say than may lie."""
        with _ways_out():
            return await self._client.agreed_governance()

    async def log(self) -> LogStands:
        """Where the log stands."""
        with _ways_out():
            return await self._client.log()

    async def submit(self, signed_control: bytes) -> Governed:
        """Bring a control record into a block."""
        with _ways_out():
            return await self._client.submit(signed_control)


class Remote:
    """A `Ledger` behind an SDK client; `writes`: it has a command service."""

    def __init__(self, founding: Founding, client: Client, *, writes: bool = True) -> None:
        self._founding = founding
        self._client = client
        self._writes = writes

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""
        return self._founding.ledger_id

    @property
    def genesis(self) -> Genesis:
        """Limits, kinds and the authority's key."""
        return self._founding.genesis

    async def submit(self, signed: SignedCommand, wait: Level, deadline_seconds: float) -> Result:
        """Publish one command and wait for `wait`, at most `deadline_seconds`."""
        self._check_writes()
        with _ways_out():
            return await self._client.submit(signed, wait=wait, deadline_seconds=deadline_seconds)

    async def submit_all(
        self, commands: Iterable[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[Result, None]:
        """Publish in order; results once certified, in the order of the commands."""
        self._check_writes()
        order = _Order(commands)
        results = self._client.submit_many(
            order.noted(), wait=Level.CERTIFIED, in_flight_max=in_flight_max
        )
        with _ways_out():
            async with aclosing(results) as arriving:
                async for signed, result in arriving:
                    for due in order.arrived(signed, result):
                        yield due

    async def outcome(self, signed: SignedCommand) -> Result | None:
        """What became of a command, as far as it can be read; None if it was never decided."""
        with _ways_out():
            return await self._client.outcome(signed)

    async def submit_many(
        self, commands: AsyncIterator[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[tuple[SignedCommand, Result], None]:
        """Publish in order; each command with its result, once certified, as they come."""
        self._check_writes()
        results = self._client.submit_many(
            commands, wait=Level.CERTIFIED, in_flight_max=in_flight_max
        )
        with _ways_out():
            async with aclosing(results) as arriving:
                async for one in arriving:
                    yield one

    async def session(self, session: SessionId) -> Session | None:
        """One session, None if there is none."""
        with _ways_out():
            return await self._client.session(session)

    async def sessions(self, limit: int) -> AsyncGenerator[Session, None]:
        """Sessions by their ids, at most `limit`."""
        count = 0
        with _ways_out():
            async for one in self._client.sessions():
                yield one
                count += 1
                if count == limit:
                    return

    async def events(
        self, session: SessionId, from_sequence: int, follow: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Events from a sequence on; with `follow`, without an end."""
        with _ways_out():
            found = self._client.events(session, from_sequence, follow=follow)
            async with aclosing(found) as events:
                async for event in events:
                    yield event

    async def receipts(
        self, session: SessionId | None, claimed: bool
    ) -> AsyncGenerator[Receipt, None]:
        """Receipts of a session, or of all, by position: the claimed ones, or the others."""
        with _ways_out():
            async for receipt in self._client.receipts(session, claimed):
                yield receipt

    async def state(self, session: SessionId, at_sequence: int | None) -> State | None:
        """The state at a sequence, or at the head; None if there is no such session."""
        with _ways_out():
            return await self._client.state(session, at_sequence or 0)

    async def export(self, session: SessionId, file: Path) -> Verdict:
        """Write the session's export, whole and verified, or leave no trace of it."""
        with _ways_out():
            return await self._client.export(session, file)

    async def status(self) -> Status:
        """What the read side holds."""
        with _ways_out():
            return await self._client.status()

    def _check_writes(self) -> None:
        if not self._writes:
            needed(None, COMMAND)


class _Order:
    """Brings results, which come as they are decided, into the order of their commands."""

    def __init__(self, commands: Iterable[SignedCommand]) -> None:
        self._commands = commands
        self._waiting: dict[Hash, Result | None] = {}

    def noted(self) -> Iterator[SignedCommand]:
        """The commands as they are taken."""
        for signed in self._commands:
            self._waiting[signed.command_hash] = None
            yield signed

    def arrived(self, signed: SignedCommand, result: Result) -> Iterator[Result]:
        """The results that are due now."""
        self._waiting[signed.command_hash] = result
        while self._waiting:
            first = next(iter(self._waiting))
            due = self._waiting[first]
            if due is None:
                return
            del self._waiting[first]
            yield due


@contextmanager
def _ways_out() -> Iterator[None]:
    """An SDK says what failed; a person also wants to know what to do."""
    try:
        yield
    except TlsRefused as fault:
        raise TlsRefused(
            f"No connection over TLS to {fault} (NOCTURNE_CA_FILE, NOCTURNE_CLIENT_CERT_FILE and "
            "NOCTURNE_CLIENT_KEY_FILE say whom you trust and who you are)."
        ) from fault
    except AccessDenied as fault:
        raise AccessDenied(
            f"The service refuses the call ({fault}): NOCTURNE_TOKEN_FILE or "
            "NOCTURNE_CLIENT_CERT_FILE say who you are, its access file what you may do."
        ) from fault
    except Unavailable as fault:
        raise Unavailable(
            f"The ledger does not answer ({fault}): 'nocturne status' shows what runs."
        ) from fault
