"""Ask the services of a deployment how they are; each is asked by itself, at once."""

from __future__ import annotations

import asyncio

from nocturne.cli.asking import within
from nocturne.cli.deployment import Deployment
from nocturne.cli.deployment_view import (
    NOT_SERVING,
    SERVING,
    UNREACHABLE,
    DeploymentSeen,
    ServiceSeen,
)
from nocturne.client import Client, Status
from nocturne.client.health import serves
from nocturne.core.errors import NocturneError


async def look(deployment: Deployment, seconds_max: float) -> DeploymentSeen:
    """What can be found out within `seconds_max`, and the first thing that is wrong."""
    asked = [_service(deployment, *one, seconds_max) for one in deployment.services]
    seen, (totals, problem) = await asyncio.gather(
        asyncio.gather(*asked), _totals(deployment, seconds_max)
    )
    troubles = [f"{one.name}: {one.cause or one.health}" for one in seen if one.health != SERVING]
    first = troubles[0] if troubles else problem
    return DeploymentSeen(tuple(seen), deployment.ledger_id, totals, first)


async def _service(
    deployment: Deployment, name: str, address: str, seconds_max: float
) -> ServiceSeen:
    try:
        well = await within(serves(name, address, deployment.credentials), seconds_max)
    except NocturneError as fault:
        return ServiceSeen(name, address, UNREACHABLE, str(fault))
    return ServiceSeen(name, address, SERVING if well else NOT_SERVING)


async def _totals(deployment: Deployment, seconds_max: float) -> tuple[Status | None, str | None]:
    """What the query service holds; or what stands in the way."""
    if deployment.query is None:
        return None, None
    try:
        async with Client(
            None,
            deployment.query,
            ledger_id=deployment.ledger_id,
            genesis=deployment.genesis,
            credentials=deployment.credentials,
            deadline_seconds=seconds_max,
        ) as client:
            return await within(client.status(), seconds_max), None
    except NocturneError as fault:
        return None, str(fault)
