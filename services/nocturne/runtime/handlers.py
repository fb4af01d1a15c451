"""gRPC's handlers, as those who stand before a method see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc


def shape_of(handler: Any) -> tuple[Callable[..., Any], Any]:
    """How such a handler is made, and what it calls."""
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler, handler.unary_unary
        case False, True:
            return grpc.unary_stream_rpc_method_handler, handler.unary_stream
        case True, False:
            return grpc.stream_unary_rpc_method_handler, handler.stream_unary
        case _:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
