"""A connection to one service: made from files, anew when they change, and what its errors mean.

A call in flight keeps the connection that it was begun on; the next one takes the newest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from nocturne.client import transport
from nocturne.client.credentials import Credentials, Loaded, is_loopback, load
from nocturne.client.diagnosis import why_not
from nocturne.client.results import CredentialsFault, TlsRefused

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files; some hundred microseconds each."""

Metadata = tuple[tuple[str, str], ...]

log = logging.getLogger(__name__)


class _Line:
    """One channel, and how many calls are on it."""

    def __init__(self, channel: grpc.aio.Channel, stub: Any) -> None:
        self.channel = channel
        self.stub = stub
        self.calls = 0


class Link:
    """The stub of one service at `address`. Use it in one event loop; `close` it at the end.

    Raises `CredentialsFault` when the files are no good to begin with, or a token would go over
    plain text to another machine. Files that become bad later change nothing until they are good.
    """

    def __init__(
        self,
        service: str,
        address: str,
        make_stub: Callable[[grpc.aio.Channel], Any],
        credentials: Credentials | None = None,
    ) -> None:
        self._service = service
        self._address = address
        self._make_stub = make_stub
        self._credentials = credentials
        self._loaded = load(credentials)
        self._check(self._loaded)
        self._looked_at = time.monotonic()
        self._line: _Line | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def metadata(self) -> Metadata:
        """What each call carries: the token, where there is one."""
        token = self._loaded.token
        return () if token is None else (("authorization", f"Bearer {token}"),)

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """The service, for one call; a stream is one call to its end."""
        if self._credentials is not None and time.monotonic() - self._looked_at > LOOK_SECONDS:
            await self.renew()
        line = self._line
        if line is None:
            line = self._line = self._open()
        line.calls += 1
        try:
            yield line.stub
        finally:
            line.calls -= 1
            self._put_away(line)

    async def passing(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether the same call may go better later. `TlsRefused` when TLS is what stands in the
        way, with the reason.
        """
        match error.code():
            case grpc.StatusCode.UNAVAILABLE:
                if await self.renew():
                    return True
                reason = await why_not(self._address, self._loaded)
                if reason is not None:
                    raise TlsRefused(f"{self._service} at {self._address}: {reason}") from error
            case grpc.StatusCode.UNAUTHENTICATED:
                # The token may have been replaced this very moment.
                return await self.renew()
        return transport.is_passing(error)

    async def fault_of(self, error: grpc.aio.AioRpcError) -> Exception:
        """The error that a caller of this package sees; as `passing`, `TlsRefused` is raised."""
        await self.passing(error)
        degraded = transport.degraded_in(error)
        return transport.fault_of(self._service, error.code(), error.details() or "", degraded)

    async def renew(self) -> bool:
        """Read the files again; whether they hold something else, which is used from now on."""
        self._looked_at = time.monotonic()
        if self._credentials is None:
            return False
        try:
            found = await asyncio.to_thread(load, self._credentials)
        except CredentialsFault as fault:
            log.warning("%s: the credentials stay as they were: %s", self._service, fault)
            return False
        before, self._loaded = self._loaded, found
        if not found.same_connection(before) and self._line is not None:
            replaced, self._line = self._line, None
            self._put_away(replaced)
        return found != before

    async def close(self) -> None:
        """Close the connection, whatever is on it."""
        for one in self._closing:
            one.cancel()
        if self._line is not None:
            await self._line.channel.close()
            self._line = None

    def _open(self) -> _Line:
        opened = transport.channel(self._address, self._loaded)
        return _Line(opened, self._make_stub(opened))

    def _put_away(self, line: _Line) -> None:
        """Close a connection that was replaced, once the last call on it has ended."""
        if line is self._line or line.calls > 0:
            return
        task = asyncio.ensure_future(line.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _check(self, loaded: Loaded) -> None:
        if loaded.token is not None and not loaded.is_tls and not is_loopback(self._address):
            raise CredentialsFault(
                f"{self._service}: a token is not sent to {self._address} in plain text, for "
                "whoever is between would have it: name the file of the authorities that you trust"
            )
