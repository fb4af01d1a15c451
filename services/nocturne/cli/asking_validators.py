"""Ask every validator of a ledger how it is, all at once, each within one short deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nocturne.cli import trust
from nocturne.cli.deployment import CONTROL, deployment_of, needed
from nocturne.cli.validators_view import Asked, Seen
from nocturne.client import Credentials
from nocturne.client.validators import ask_validator
from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.identifiers import LedgerId
from nocturne.embedded import lock
from nocturne.embedded import status as statuses
from nocturne.embedded.home import Home
from nocturne.runtime.lifecycle import halted_before


def look(home: Home, environment: Mapping[str, str], seconds_max: float) -> Seen:
    """What the validators of the deployment that the environment names say, else those of a home;
    `Unavailable` when nothing runs there.
    """
    deployment = deployment_of(environment)
    if deployment is not None:
        addresses = needed(deployment.control, CONTROL)
        named = [(address, address) for address in addresses]
        return _seen(None, deployment.ledger_id, named, deployment.credentials, seconds_max)
    founding = trust.founding_of(home)
    found = statuses.read(home.status)
    names = statuses.validators_in(found)
    if founding is None or lock.holder(home.lock) is None or not names:
        raise Unavailable(f"Nothing runs in {home.root}: 'nocturne up --detach' starts it.")
    named = [(name, found.address(name)) for name in names]
    seen = _seen(home.root, founding.ledger_id, named, None, seconds_max)
    return replace(seen, asked=tuple(_with_halt(home, one) for one in seen.asked))


def _with_halt(home: Home, asked: Asked) -> Asked:
    """Whoever halted does not answer any more: its folder has the cause."""
    cause = None if asked.said is not None else halted_before(home.data(asked.name))
    return asked if cause is None else replace(asked, problem=cause, halted=True)


def _seen(
    home: Path | None,
    ledger_id: LedgerId,
    named: Sequence[tuple[str, str]],
    credentials: Credentials | None,
    seconds_max: float,
) -> Seen:
    async def all_at_once() -> list[Asked]:
        return await asyncio.gather(
            *(_asked(name, address, credentials, seconds_max) for name, address in named)
        )

    return Seen(home, ledger_id, tuple(asyncio.run(all_at_once())))


async def _asked(
    name: str, address: str, credentials: Credentials | None, seconds_max: float
) -> Asked:
    try:
        async with asyncio.timeout(seconds_max):
            said = await ask_validator(address, seconds_max, credentials)
    except TimeoutError:
        return Asked(name, address, None, f"no answer within {seconds_max:g} s")
    except NocturneError as fault:
        return Asked(name, address, None, str(fault))
    return Asked(name, address, said)
