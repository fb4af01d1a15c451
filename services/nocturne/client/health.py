"""Whether a service serves, as it says itself."""

from __future__ import annotations

from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nocturne.client.credentials import Credentials
from nocturne.client.link import Link

ANSWER_SECONDS_MAX: Final = 5.0


async def serves(service: str, address: str, credentials: Credentials | None = None) -> bool:
    """Whether the service at `address` says SERVING; `Unavailable` when it says nothing, with the
    reason. Asked without a role: whoever gets through to a service may ask it that.
    """
    link = Link(service, address, health_pb2_grpc.HealthStub, credentials)
    try:
        async with link.stub() as stub:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS_MAX, metadata=link.metadata
            )
    except grpc.aio.AioRpcError as error:
        raise await link.fault_of(error) from error
    finally:
        await link.close()
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
