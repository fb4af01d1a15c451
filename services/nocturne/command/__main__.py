"""The command service: admits author-signed commands and answers with what became of them."""

from __future__ import annotations

import asyncio
import sys

from nocturne.command import store
from nocturne.command.limits import RateLimits, SessionCounts
from nocturne.command.service import (
    Commands,
    CommandSettings,
    Follower,
    check_topic,
    producer_for,
    watch,
)
from nocturne.command.servicer import REQUEST_BYTES_MAX, CommandServicer, rpc_service
from nocturne.core.topics import COMMANDS
from nocturne.runtime.degraded import LedgerMode, measure
from nocturne.runtime.kafka import measure_rotation
from nocturne.runtime.lifecycle import Lifecycle, run
from nocturne.runtime.registry import schema_ids
from nocturne.runtime.rpc import serve
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import read_founding, read_settings


async def main(lifecycle: Lifecycle) -> None:
    """Wire the parts and run them until told to stop."""
    settings = read_settings(CommandSettings)
    measure_rotation(settings.cluster, lifecycle.metrics)
    founding = read_founding(settings.genesis_file)
    await asyncio.to_thread(check_topic, settings, founding)
    ids = await asyncio.to_thread(schema_ids, settings.registry_url)
    producer = producer_for(settings)
    limits = RateLimits(settings.rate_per_second, settings.rate_burst)
    counted = await asyncio.to_thread(store.load, settings.home_dir, founding.ledger_id)
    sessions = SessionCounts(settings.sessions_per_author_max, counted)
    mode = LedgerMode(settings.home_dir, founding.ledger_id)
    measure(lifecycle.metrics, lambda: mode.degraded)
    commands = Commands(
        founding,
        producer,
        ids[COMMANDS],
        limits,
        sessions,
        lifecycle.metrics,
        mode,
        lifecycle.tracer,
    )
    follower = Follower(founding, settings, commands, counted)
    commands.counters.lag.set_function(follower.lag)
    servicer = CommandServicer(commands, settings)
    server = await serve(
        settings.listen,
        [rpc_service(servicer)],
        message_bytes_max=REQUEST_BYTES_MAX,
        vitals=lifecycle.vitals,
        security=security_of(settings, lifecycle.metrics),
        trailing=mode.metadata,
    )
    try:
        await lifecycle.until_stopped(
            follower.follow(),
            follower.keep_counts(),
            commands.expire(),
            watch(server, producer, follower, mode),
            server.served(),
            wind_down=server.stop,
        )
    finally:
        await server.stop(0)
        await follower.keep_now()
        await producer.close()


if __name__ == "__main__":
    sys.exit(run("command", main))
