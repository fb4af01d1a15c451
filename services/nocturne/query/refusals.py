"""Refused questions, as gRPC statuses with google.rpc details. Pure.

Rules: docs/spec/services.md, errors. https://cloud.google.com/apis/design/errors: a missing thing
is named by a ResourceInfo, a wrong field by a BadRequest.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from nocturne.core.errors import PeerFault

DOMAIN: Final = "nocturne.query"
RETRY_MS: Final = 1000
"""Services are back within a few seconds; asking more often does not help."""


class Refused(PeerFault):
    """A question that has no answer: a gRPC status and its details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def status(self) -> Status:
        """The google.rpc.Status that carries the details."""
        status = Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status


def not_found(what: str, name: str, why: str = "") -> Refused:
    """NOT_FOUND: there is no such `what` (session, disposition, block) as far as is applied."""
    message = why or f"{what} {name}: there is none"
    detail = ResourceInfo(resource_type=f"nocturne.{what}", resource_name=name, description=message)
    return Refused(grpc.StatusCode.NOT_FOUND, message, detail)


def invalid(field: str, message: str) -> Refused:
    """INVALID_ARGUMENT: `field` is not what it must be."""
    violation = BadRequest.FieldViolation(field=field, description=message)
    return Refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {message}",
        BadRequest(field_violations=[violation]),
    )


def out_of_range(field: str, message: str) -> Refused:
    """OUT_OF_RANGE: `field` names what may come, and is not there yet."""
    violation = BadRequest.FieldViolation(field=field, description=message)
    return Refused(
        grpc.StatusCode.OUT_OF_RANGE,
        f"{field}: {message}",
        BadRequest(field_violations=[violation]),
    )


def try_again(code: grpc.StatusCode, reason: str, message: str) -> Refused:
    """UNAVAILABLE or RESOURCE_EXHAUSTED: the same question may have an answer soon."""
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(RETRY_MS)
    return Refused(code, message, retry, ErrorInfo(reason=reason, domain=DOMAIN))


def failed(code: grpc.StatusCode, reason: str, message: str) -> Refused:
    """Any other status, with an ErrorInfo whose reason a program can read."""
    return Refused(code, message, ErrorInfo(reason=reason, domain=DOMAIN))
