"""Keep processes alive: start them, ask their health, restart what dies, stop all.

Everything happens on one asyncio loop in the main thread, which starts every process itself,
because the kernel ties "die with your parent" to the thread that forked. A process is ended only
by the one who started it, never by name.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process as Running
from collections.abc import Collection, Iterator, Sequence
from typing import IO

from nocturne.embedded import logs, status
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.embedded.processes import Process, birth, launched
from nocturne.embedded.readiness import Need, is_hopeless, waited_for
from nocturne.embedded.restarts import GiveUp, RestartAfter, after_death
from nocturne.embedded.status import Health, ServiceStatus, Status

JOB_SECONDS_MAX = 120.0
# A health question is cheap while a process starts, and not worth much once it runs.
HEALTH_STARTING_SECONDS = 0.1
HEALTH_RUNNING_SECONDS = 5.0
LOG_CHECK_SECONDS = 10.0


class Child:
    """One process under supervision and what became of it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.health = Health.WAITING
        self.running: Running | None = None
        self.was_healthy = False
        self.deaths: list[float] = []

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.returncode is None

    @property
    def status(self) -> ServiceStatus:
        pid = self.running.pid if self.running is not None and self.alive else None
        return ServiceStatus(
            name=self.process.name,
            pid=pid,
            birth=birth(pid) if pid is not None else None,
            port=self.process.port,
            health=self.health,
            restarts=len(self.deaths),
        )


class Supervisor:
    """Keeps a set of processes alive and writes down what it sees in the home's status file."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._children: list[Child] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._needs: list[Need] = []
        self._changed = asyncio.Event()
        self._error: EmbeddedError | None = None
        self._ready = False
        self._stopping = False

    # ------------------------------------------------------------ starting

    def start(self, process: Process) -> None:
        """Start a process and keep it alive from now on."""
        child = Child(process)
        self._children.append(child)
        self._tasks.append(asyncio.create_task(self._keep(child), name=process.name))

    async def until_healthy(self, needs: Sequence[Need], seconds: float) -> None:
        """Wait until enough are healthy; from then on being ready takes it. EmbeddedError when too
        many were given up or the time is over.
        """
        self._needs += needs
        try:
            async with asyncio.timeout(seconds):
                while self._late(needs) is not None:
                    if self._error is not None and is_hopeless(needs, self._given_up()):
                        raise self._error
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            late = self._late(needs)
            assert late is not None, "nothing changed since the last look"
            raise EmbeddedError(
                f"{late} did not answer within {seconds:.0f} s: see {self._home.log(late)}.",
                logs.tail(self._home.log(late)),
            ) from None

    def _late(self, needs: Sequence[Need]) -> str | None:
        """The first that was not healthy once, of those that are needed."""
        return waited_for(
            needs, {child.process.name for child in self._children if child.was_healthy}
        )

    def _given_up(self) -> set[str]:
        return {one.process.name for one in self._children if one.health is Health.GIVEN_UP}

    async def run_once(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        """Run a job to its end. EmbeddedError when it fails or takes too long."""
        with self._output(name) as output:
            job = await _spawn(launched(argv), environment, output)
        try:
            async with asyncio.timeout(JOB_SECONDS_MAX):
                await job.wait()
        except TimeoutError:
            ending = f"took longer than {JOB_SECONDS_MAX:.0f} s"
        else:
            ending = f"failed with {_ending(job)}" if job.returncode != 0 else ""
        finally:
            if job.returncode is None:
                job.kill()
                await job.wait()
        if ending:
            log = self._home.log(name)
            raise EmbeddedError(f"{name} {ending}: see {log}.", logs.tail(log))

    # ------------------------------------------------------------ keeping alive

    async def _keep(self, child: Child) -> None:
        while True:
            running = await self._start(child)
            watch = asyncio.create_task(self._watch(child))
            try:
                await running.wait()
            finally:
                watch.cancel()
            if self._stopping:
                return
            child.deaths.append(time.monotonic())
            self._note(child, f"ended with {_ending(running)}")
            final = child.process.final_exits.get(running.returncode or 0)
            match after_death(child.deaths, child.was_healthy, final):
                case GiveUp(reason):
                    self._give_up(child, reason)
                    return
                case RestartAfter(seconds):
                    self._set_health(child, Health.RESTARTING)
                    await asyncio.sleep(seconds)

    async def _start(self, child: Child) -> Running:
        process = child.process
        argv = launched(process.argv, process.user, process.orphan_signal)
        with self._output(process.name) as output:
            child.running = await _spawn(argv, dict(process.environment), output)
        self._set_health(child, Health.STARTING)
        return child.running

    async def _watch(self, child: Child) -> None:
        """Ask the process's health until cancelled."""
        while True:
            healthy = await asyncio.to_thread(child.process.healthy)
            if healthy and child.alive:
                child.was_healthy = True
                self._set_health(child, Health.HEALTHY)
            elif child.health is Health.HEALTHY:
                self._set_health(child, Health.UNHEALTHY)
            settled = child.health is Health.HEALTHY
            await asyncio.sleep(HEALTH_RUNNING_SECONDS if settled else HEALTH_STARTING_SECONDS)

    def _give_up(self, child: Child, reason: str) -> None:
        name = child.process.name
        log = self._home.log(name)
        child.health = Health.GIVEN_UP
        self.fail(EmbeddedError(f"{name} was given up ({reason}): see {log}.", logs.tail(log)))
        if self._ready or not is_hopeless(self._needs, self._given_up()):
            # While starting, whoever waits in vain is told by the exception.
            print(self._error, file=sys.stderr, flush=True)

    def _note(self, child: Child, what: str) -> None:
        with self._output(child.process.name) as output:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            output.write(f"{stamp} supervisor: {child.process.name} {what}\n".encode())

    @contextlib.contextmanager
    def _output(self, name: str) -> Iterator[IO[bytes]]:
        with self._home.log(name).open("ab", buffering=0) as output:
            yield output

    async def bound_logs(self) -> None:
        """Keep every log within its bound, for ever."""
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            for child in self._children:
                logs.bound(self._home.log(child.process.name))

    # ------------------------------------------------------------ telling

    def set_ready(self) -> None:
        self._ready = True
        self.tell()

    def fail(self, error: EmbeddedError) -> None:
        self._error = error
        self.tell()

    def tell(self) -> None:
        """Write the status file; wake who waits for a change."""
        error = self._error
        healthy = {one.process.name for one in self._children if one.health is Health.HEALTHY}
        told = Status(
            supervisor=os.getpid(),
            ready=self._ready and waited_for(self._needs, healthy) is None and not self._stopping,
            error=str(error) if error is not None else None,
            details=error.details if error is not None else (),
            services=tuple(child.status for child in self._children),
        )
        status.write(self._home.status, told)
        self._changed.set()

    def _set_health(self, child: Child, health: Health) -> None:
        if child.health is not health or health is Health.STARTING:
            child.health = health
            self.tell()

    # ------------------------------------------------------------ stopping

    async def stop(self, last: Collection[str]) -> None:
        """End everything within a bound; `last` after all that stands on them."""
        self._stopping = True
        self.tell()
        upper = [child for child in self._children if child.process.name not in last]
        lower = [child for child in self._children if child.process.name in last]
        for group in (upper, lower):
            await asyncio.gather(*map(self._end, group))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self, child: Child) -> None:
        running = child.running
        if running is not None and running.returncode is None:
            running.send_signal(child.process.stop_signal)
            try:
                async with asyncio.timeout(child.process.stop_seconds_max):
                    await running.wait()
            except TimeoutError:
                self._note(child, f"did not stop within {child.process.stop_seconds_max:.0f} s")
                running.kill()
                await running.wait()
        self._set_health(child, Health.STOPPED)


async def _spawn(argv: list[str], environment: dict[str, str], output: IO[bytes]) -> Running:
    return await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # A Ctrl-C at the terminal is the supervisor's to answer, in its order.
        start_new_session=True,
    )


def _ending(process: Running) -> str:
    code = process.returncode
    assert code is not None
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
