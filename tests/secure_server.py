"""A process that serves every gRPC service of Nocturne, each method with an answer that says
little, behind the real doors: `python -m tests.secure_server`, with the settings of any service.

What it is for is what stands before a method: TLS, the access file, their rotation.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import Message

from nocturne.core.keys import key_bytes, signatures_bytes
from nocturne.runtime.guard import caller_of
from nocturne.runtime.lifecycle import Lifecycle, run
from nocturne.runtime.rpc import RpcService, serve
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import ServiceSettings, read_founding, read_settings
from nocturne.wire.command.v1 import command_pb2
from nocturne.wire.consensus.v1 import consensus_pb2, validator_pb2
from nocturne.wire.query.v1 import query_pb2

SERVICES = tuple(
    service
    for module in (command_pb2, query_pb2, consensus_pb2, validator_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
CALLER = "caller"
"""Of the trailing metadata: who called, as the service sees it."""


def methods() -> Iterator[tuple[str, Any]]:
    """Every method by its path, with its descriptor."""
    for service in SERVICES:
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}", method


def empty_service(
    service: Any, answers: Mapping[str, Message] = MappingProxyType({})
) -> RpcService:
    """All methods of a service, each with one answer to each request: an empty one, or the one of
    `answers`.
    """
    handlers = {
        method.name: _handler(method, answers.get(method.name)) for method in service.methods
    }
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    return RpcService(service.full_name, lambda server: server.add_generic_rpc_handlers((generic,)))


def _handler(method: Any, given: Message | None) -> Any:
    request, kind = method.input_type._concrete_class, method.output_type._concrete_class
    make: Callable[..., Any]

    def answer() -> Any:
        return kind() if given is None else given

    async def one(_: Message, context: Any) -> Any:
        context.set_trailing_metadata(((CALLER, caller_of(context)),))
        return answer()

    async def stream(_: Message, context: Any) -> AsyncIterator[Any]:
        context.set_trailing_metadata(((CALLER, caller_of(context)),))
        yield answer()

    async def follow(_: Message, context: Any) -> AsyncIterator[Any]:
        """As events that are followed: an answer every now and then, without an end."""
        while True:
            yield answer()
            await asyncio.sleep(0.05)

    async def both(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield answer()

    if method.client_streaming:
        make, behaviour = grpc.stream_stream_rpc_method_handler, both
    elif method.server_streaming:
        make = grpc.unary_stream_rpc_method_handler
        behaviour = follow if method.name == "ListEvents" else stream
    else:
        make, behaviour = grpc.unary_unary_rpc_method_handler, one
    return make(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=kind.SerializeToString,
    )


async def main(lifecycle: Lifecycle) -> None:
    """Serve until told to stop."""
    settings = read_settings(ServiceSettings)
    founding = read_founding(settings.genesis_file)
    answers = {
        "GetStatus": query_pb2.GetStatusResponse(ledger_id=founding.ledger_id, events=7),
        "GetGenesis": query_pb2.GetGenesisResponse(genesis=founding.data),
        "GetControl": consensus_pb2.GetControlResponse(
            ledger_id=founding.ledger_id,
            number=3,
            epoch_length=founding.genesis.epoch_length,
            validator_sets=[
                consensus_pb2.DecidedValidators(
                    validators=[
                        consensus_pb2.ValidatorMember(
                            key=key_bytes(key), possession=signatures_bytes(possession)
                        )
                        for key, possession in founding.genesis.validators
                    ]
                )
            ],
        ),
    }
    server = await serve(
        settings.listen,
        [empty_service(one, answers) for one in SERVICES],
        security=security_of(settings, lifecycle.metrics),
    )
    await server.set_serving(True)
    try:
        await lifecycle.stopping.wait()
    finally:
        await server.stop()


if __name__ == "__main__":
    sys.exit(run("secure", main))
