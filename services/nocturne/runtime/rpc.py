"""gRPC as the services serve it: bounded messages, health, reflection, keepalive, graceful end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nocturne.core.errors import Unavailable

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""gRPC's own default, made explicit; a service names what its messages need."""
STOP_SECONDS_MAX: Final = 3.0
"""How long calls in flight may go on once the service is told to stop."""

_SERVER_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # A taken port is an error, never shared with whoever took it.
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class RpcService:
    """A gRPC service by its full name, and the generated function that adds its servicer."""

    full_name: str
    add: Callable[[grpc.aio.Server], None]


class RpcServer:
    """A gRPC server with health and reflection beside the services given. NOT_SERVING at first."""

    def __init__(self, listen: str, services: Sequence[RpcService], message_bytes_max: int) -> None:
        self._names = tuple(service.full_name for service in services)
        self._server = grpc.aio.server(
            options=[
                *_SERVER_OPTIONS,
                ("grpc.max_receive_message_length", message_bytes_max),
                # What is sent is bounded by the one who builds it.
                ("grpc.max_send_message_length", -1),
            ]
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            service.add(self._server)
        reflection.enable_server_reflection(
            (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        try:
            self.port = self._server.add_insecure_port(listen)
        except RuntimeError as fault:
            raise Unavailable(f"address {listen}: cannot listen there, is it taken?") from fault

    async def start(self) -> None:
        """Accept calls; health says NOT_SERVING until `set_serving`."""
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What health says of the process and of every service in it."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, seconds_max: float = STOP_SECONDS_MAX) -> None:
        """Say NOT_SERVING, take no new call, and let the others end, at most `seconds_max`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds_max)


class HealthServer(RpcServer):
    """Health alone, for a service without calls of its own."""

    def __init__(self, listen: str) -> None:
        super().__init__(listen, (), MESSAGE_BYTES_MAX)


async def serve(
    listen: str,
    services: Sequence[RpcService] = (),
    *,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> RpcServer:
    """A started server at `listen`; the caller says when it is serving, and stops it."""
    server = RpcServer(listen, services, message_bytes_max)
    await server.start()
    return server
