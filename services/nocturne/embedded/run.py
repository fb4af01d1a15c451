"""One whole run of an embedded ledger, from the lock on its home to the last process's end.

Order: broker and database side by side, then what they need once (topics, roles, migrations), then
every service. `python -m nocturne.embedded.run --home …` is the detached form.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psycopg

from nocturne.core.certificates import quorum
from nocturne.core.errors import NocturneError
from nocturne.deploy import topics
from nocturne.deploy.contributions import FoundingFault, check_validators
from nocturne.embedded import (
    ceremony,
    downloads,
    kafka,
    logs,
    ports,
    postgres,
    services,
    status,
)
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.embedded.lock import held
from nocturne.embedded.processes import birth
from nocturne.embedded.readiness import Need, all_of
from nocturne.embedded.reservations import Reservations
from nocturne.embedded.services import VALIDATORS_DEFAULT, Machine
from nocturne.embedded.supervisor import Supervisor
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.registry import schema_ids

START_SECONDS_MAX = 120.0
LEFTOVER_SECONDS_MAX = 10.0
POLL_SECONDS = 0.05
VALIDATORS_LOOK_SECONDS = 1.0
"""Between two looks for a validator's place that was made while the ledger runs."""
# What every service stands on: first to start, last to stop.
FOUNDATION = ("kafka", "postgres")


def run(home: Home, validators: int | None, progress: downloads.Progress) -> None:
    """Run the ledger of this home until SIGTERM or SIGINT. EmbeddedError when it cannot run.

    `validators` is for a home that has no ledger yet; None: as many as usual.
    """
    founding = VALIDATORS_DEFAULT if validators is None else validators
    try:
        check_validators(founding)
    except FoundingFault as fault:
        raise EmbeddedError(f"--validators: {fault}.") from fault
    home.create()
    # For as long as this runs: a port stays ours while the process behind it is killed.
    reserved = Reservations()
    with held(home.lock), contextlib.closing(reserved):
        try:
            _wait_for_leftovers(home)
            _check_registry(os.environ)
            classpath = downloads.ensure_kafka(downloads.cache_folder(os.environ), progress)
            machine, partitions = _machine(home, classpath, reserved.take, founding)
        except EmbeddedError as error:
            _tell_failure(home, error)
            raise
        logs.rotate(home.logs)
        asyncio.run(_run(machine, partitions, reserved.take))


def _check_registry(environment: Mapping[str, str]) -> None:
    """Every service asks the registry at its start; what it lacks is told here, once."""
    try:
        schema_ids(environment.get("NOCTURNE_REGISTRY_URL") or None)
    except NocturneError as fault:
        raise EmbeddedError(f"The schema {fault}.") from fault


def _machine(
    home: Home, classpath: tuple[Path, ...], free: ports.IsFree, founding: int
) -> tuple[Machine, int]:
    founded = ceremony.ensure(home.root, founding)
    validators = ceremony.validators_here(home)
    usual = services.usual_ports(validators)
    chosen = ports.choose(usual, ports.load(home.ports), os.environ, free, random.SystemRandom())
    ports.save(home.ports, chosen)
    broker = kafka.Broker(
        home.kafka, chosen["kafka"], chosen["kafka-controller"], classpath, kafka.java()
    )
    server = postgres.Server(home.postgres / "data", chosen["postgres"], home.keys("postgres"))
    machine = Machine(home, broker, server, chosen, founded.genesis_file, validators)
    services.write_peers(machine)
    for service in machine.services:
        home.data(service.name).mkdir(exist_ok=True, mode=0o700)
    return machine, founded.partitions


def _tell_failure(home: Home, error: EmbeddedError) -> None:
    """Write down why nothing was started; what ran before stays in the list."""
    told = replace(
        status.read(home.status),
        supervisor=os.getpid(),
        ready=False,
        error=str(error),
        details=error.details,
    )
    status.write(home.status, told)


def _wait_for_leftovers(home: Home) -> None:
    """Processes of a supervisor that was killed die with it; wait until they have."""
    deadline = time.monotonic() + LEFTOVER_SECONDS_MAX
    for service in status.read(home.status).services:
        pid = service.pid
        while pid is not None and service.birth == birth(pid):
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{service.name} of an earlier run still lives (pid {pid}): end it with "
                    f"'kill {pid}' and run again."
                )
            time.sleep(POLL_SECONDS)


def _with_validators(machine: Machine, count: int, free: ports.IsFree) -> Machine:
    """With the places that were made since: ports for them, and their addresses for the others."""
    usual = {
        name: port
        for name, port in services.usual_ports(count).items()
        if name not in machine.ports
    }
    remembered = ports.load(machine.home.ports)
    chosen = ports.choose(usual, remembered, os.environ, free, random.SystemRandom())
    # What others remember stays: a port is chosen once.
    ports.save(machine.home.ports, {**remembered, **machine.ports, **chosen})
    grown = replace(machine, ports={**machine.ports, **chosen}, validators=count)
    services.write_peers(grown)
    return grown


async def _admit(supervisor: Supervisor, machine: Machine, free: ports.IsFree) -> None:
    """Start each validator whose place is made while the ledger runs, for ever."""
    while True:
        await asyncio.sleep(VALIDATORS_LOOK_SECONDS)
        known = machine.validators
        count = ceremony.validators_here(machine.home)
        if count > known:
            try:
                machine = _with_validators(machine, count, free)
            except EmbeddedError as error:
                supervisor.fail(error)
                return
            for service in services.validators_of(count)[known:]:
                machine.home.data(service.name).mkdir(exist_ok=True, mode=0o700)
                supervisor.start(services.process(machine, service))


async def _run(machine: Machine, partitions: int, free: ports.IsFree) -> None:
    supervisor = Supervisor(machine.home)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bounding = asyncio.create_task(supervisor.bound_logs())
    starting = asyncio.create_task(_start(supervisor, machine, partitions))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            admitting = asyncio.create_task(_admit(supervisor, machine, free))
            try:
                await asyncio.wait({admitting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if admitting.done():
                    admitting.result()
                await stopping
            finally:
                admitting.cancel()
                await asyncio.gather(admitting, return_exceptions=True)
    except EmbeddedError as error:
        supervisor.fail(error)
        raise
    finally:
        for task in (starting, stopping, bounding):
            task.cancel()
        await asyncio.gather(starting, stopping, bounding, return_exceptions=True)
        await supervisor.stop(last=FOUNDATION)


async def _start(supervisor: Supervisor, machine: Machine, partitions: int) -> None:
    supervisor.tell()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_start_log(supervisor, machine, partitions))
            group.create_task(_start_database(supervisor, machine))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    for service in machine.services:
        supervisor.start(services.process(machine, service))
    await supervisor.until_healthy(_needs(machine), START_SECONDS_MAX)
    supervisor.set_ready()


def _needs(machine: Machine) -> tuple[Need, Need]:
    """A quorum of the validators, and every other service."""
    validators = tuple(one.name for one in services.validators_of(machine.validators))
    others = all_of(one.name for one in machine.services if one.name not in validators)
    return Need(validators, quorum(len(validators))), others


async def _start_log(supervisor: Supervisor, machine: Machine, partitions: int) -> None:
    await asyncio.to_thread(kafka.prepare, machine.broker)
    supervisor.start(services.kafka_process(machine.broker))
    await supervisor.until_healthy([all_of(["kafka"])], START_SECONDS_MAX)
    await asyncio.to_thread(_make_topics, Cluster(machine.broker.bootstrap), partitions)


def _make_topics(cluster: Cluster, partitions: int) -> None:
    try:
        topics.ensure(cluster, topics.plan(partitions))
    except topics.TopicFault as fault:
        raise EmbeddedError(f"This home's broker: {fault}; use another home.") from fault
    except NocturneError as fault:
        raise EmbeddedError(f"The topics could not be made ({fault}): see kafka's log.") from fault


def _make_roles(server: postgres.Server) -> None:
    try:
        postgres.ensure_roles(server)
    except (NocturneError, psycopg.Error) as fault:
        raise EmbeddedError(
            f"The database's roles could not be made ({str(fault).strip()}): see postgres' log."
        ) from fault


async def _start_database(supervisor: Supervisor, machine: Machine) -> None:
    await asyncio.to_thread(postgres.prepare, machine.server)
    supervisor.start(services.postgres_process(machine.server))
    await supervisor.until_healthy([all_of(["postgres"])], START_SECONDS_MAX)
    await asyncio.to_thread(_make_roles, machine.server)
    await supervisor.run_once(
        "migrations",
        [sys.executable, "-m", "nocturne.projection.migrate"],
        services.migrations_environment(machine.server),
    )


def main() -> int:
    """The detached supervisor: `python -m nocturne.embedded.run --home …`."""
    parser = argparse.ArgumentParser(description="Run an embedded ledger until it is told to stop.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--validators", type=int)
    arguments = parser.parse_args()
    try:
        run(Home(arguments.home), arguments.validators, downloads.ignore_progress)
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
