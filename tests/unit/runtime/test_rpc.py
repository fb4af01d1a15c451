"""gRPC servers: health, reflection, bounds, and an end that lets calls finish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nocturne.core.errors import Unavailable
from nocturne.runtime.rpc import HealthServer, RpcServer, RpcService, details_of, serve

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


def echo_service(started: asyncio.Event, release: asyncio.Event) -> RpcService:
    """One unary method that answers what it was sent, once released."""

    async def echo(request: bytes, _: Any) -> bytes:
        started.set()
        await release.wait()
        return request

    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    generic = grpc.method_handlers_generic_handler("test.v1.Echo", handlers)
    return RpcService("test.v1.Echo", lambda server: server.add_generic_rpc_handlers((generic,)))


def channel_to(server: RpcServer) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")


def test_health_follows_what_the_service_says() -> None:
    async def test() -> None:
        server = HealthServer("127.0.0.1:0")
        await server.start()
        async with channel_to(server) as channel:
            assert await health_of(channel) == NOT_SERVING
            await server.set_serving(True)
            assert await health_of(channel) == SERVING
            await server.set_serving(False)
            assert await health_of(channel) == NOT_SERVING
        await server.stop(0)

    run(test)


def test_a_service_has_health_and_reflection_under_its_name() -> None:
    async def test() -> None:
        server = await serve("127.0.0.1:0", [echo_service(asyncio.Event(), asyncio.Event())])
        await server.set_serving(True)
        async with channel_to(server) as channel:
            assert await health_of(channel, "test.v1.Echo") == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_of(channel, "unknown")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            async for answer in stub.ServerReflectionInfo(iter([request])):
                names = {one.name for one in answer.list_services_response.service}
                assert {"test.v1.Echo", "grpc.health.v1.Health"} <= names
        await server.stop(0)

    run(test)


def test_a_message_over_the_bound_is_refused() -> None:
    async def test() -> None:
        release = asyncio.Event()
        release.set()
        server = await serve(
            "127.0.0.1:0", [echo_service(asyncio.Event(), release)], message_bytes_max=1000
        )
        async with channel_to(server) as channel:
            call: Any = channel.unary_unary("/test.v1.Echo/Echo")
            assert await call(b"x" * 900) == b"x" * 900
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"x" * 1100)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await server.stop(0)

    run(test)


def test_a_call_in_flight_may_end_when_the_server_stops() -> None:
    async def test() -> None:
        started, release = asyncio.Event(), asyncio.Event()
        server = await serve("127.0.0.1:0", [echo_service(started, release)])
        async with channel_to(server) as channel:
            echo: Any = channel.unary_unary("/test.v1.Echo/Echo")
            call = asyncio.ensure_future(echo(b"last"))
            await started.wait()
            stopping = asyncio.ensure_future(server.stop(10))
            await asyncio.sleep(0)
            release.set()
            assert await call == b"last"
            await stopping

    run(test)


def test_a_call_that_does_not_end_is_ended_after_the_bound() -> None:
    async def test() -> None:
        started = asyncio.Event()
        server = await serve("127.0.0.1:0", [echo_service(started, asyncio.Event())])
        async with channel_to(server) as channel:
            echo: Any = channel.unary_unary("/test.v1.Echo/Echo")
            call = asyncio.ensure_future(echo(b"last"))
            await started.wait()
            await server.stop(0.05)
            with pytest.raises(grpc.aio.AioRpcError):
                await call

    run(test)


def test_a_taken_address_is_said() -> None:
    async def test() -> None:
        server = await serve("127.0.0.1:0")
        with pytest.raises(Unavailable, match="is it taken"):
            await serve(f"127.0.0.1:{server.port}")
        await server.stop(0)

    run(test)


def test_bytes_that_are_no_message_are_refused_with_details_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of one answer, of a stream of them, and within a stream of requests."""
    bad = b"\x0a\x05x"

    async def refused(answers: Any) -> grpc.aio.AioRpcError:
        async def ended() -> None:
            if not hasattr(answers, "__aiter__"):
                await answers
                return
            async for _ in answers:
                pass

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ended()
        return caught.value

    async def test() -> None:
        server = HealthServer("127.0.0.1:0")
        await server.start()
        await server.set_serving(True)
        reflected = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        async with channel_to(server) as channel:
            for answers in (
                channel.unary_unary("/grpc.health.v1.Health/Check")(bad),
                channel.unary_stream("/grpc.health.v1.Health/Watch")(bad),
                channel.stream_stream(reflected)(iter([bad])),
            ):
                error = await refused(answers)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "expected a message of this method" in (error.details() or "")
                details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
                status = status_pb2.Status.FromString(details)
                violation = error_details_pb2.BadRequest()
                assert status.details[0].Unpack(violation)
                assert violation.field_violations[0].field == "request"
            assert await health_of(channel) == SERVING
        await server.stop(0)

    run(test)
    assert caplog.records == []


def test_what_goes_with_every_answer_is_asked_for_at_its_end_and_stays_with_errors() -> None:
    said = ["SYNC_WS"]

    async def check(request: Any, context: Any) -> Any:
        if request.service == "none":
            status = status_pb2.Status(code=5, message="none")
            await context.abort(grpc.StatusCode.NOT_FOUND, "none", details_of(context, status))
        said[0] = "DEGRADED"
        return health_pb2.HealthCheckResponse(status=SERVING)

    handlers: dict[str, Any] = {
        "Check": grpc.unary_unary_rpc_method_handler(
            check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
    }
    generic = grpc.method_handlers_generic_handler("test.v1.Mode", handlers)
    service = RpcService("test.v1.Mode", lambda server: server.add_generic_rpc_handlers((generic,)))

    async def test() -> None:
        server = await serve(
            "127.0.0.1:0", [service], trailing=lambda: (("nocturne-mode", said[0]),)
        )
        async with channel_to(server) as channel:
            method: Any = channel.unary_unary(
                "/test.v1.Mode/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method(health_pb2.HealthCheckRequest(service="none"))
            trailing = dict(refused.value.trailing_metadata())
            assert trailing["nocturne-mode"] == "SYNC_WS"
            assert "grpc-status-details-bin" in trailing
            call = method(health_pb2.HealthCheckRequest())
            await call
            assert dict(await call.trailing_metadata())["nocturne-mode"] == "DEGRADED"
        await server.stop(0)

    run(test)
