"""The life of a process: start, work until told to stop, and how it ends.

Exit codes: 0 stopped as asked, 1 failed (start it again), 2 its settings are wrong, 3 halted: its
own data contradicts itself, it wrote `halted` into its home and refuses to start until a person
has looked and removed that file. With the setting ON_HALT=stay a halted process does nothing but
answer at METRICS_LISTEN until it is told to stop, and ends with 3 then.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from pydantic import ValidationError
from setproctitle import setproctitle

from nocturne.core.errors import Halt, NocturneError
from nocturne.runtime.http_server import HttpServer
from nocturne.runtime.memory import bound_what_is_kept
from nocturne.runtime.settings import PREFIX, ProcessSettings
from nocturne.runtime.spans import OFF, Tracer, tracer_of
from nocturne.runtime.telemetry import Metrics, ProcessMetrics, configure_logs
from nocturne.runtime.ticks import seconds_to_tick
from nocturne.runtime.vitals import Vitals

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
EXIT_HALTED: Final = 3

HALTED_FILE: Final = "halted"
CAUSE_CHARACTERS_MAX: Final = 4096
"""Of a cause that is read again: a sentence or two, whatever else was put into the file."""
STOP_SECONDS_MAX: Final = 8.0
"""From the signal to the end; below the ten seconds after which the supervisor kills."""
SWITCH_SECONDS: Final = 0.001
"""How long one thread may hold the interpreter while another waits: consumer threads hand over
records through it, and Python's 5 ms would be an eighth of the promised latency."""

TURN_SECONDS: Final = 1.0
"""How often the event loop shows that it turns."""

GARBAGE_THRESHOLDS: Final = (20_000, 20, 20)
"""A batch of records makes thousands of objects that go with it: looking for cycles among them
every 700 objects, as Python does, was a tenth of the command service's time and found none."""

log = structlog.get_logger()


class Lifecycle:
    """What a service's main gets: the signal to stop, its metrics, and its way to run its parts."""

    def __init__(
        self,
        name: str,
        settings: ProcessSettings,
        metrics: Metrics,
        vitals: Vitals,
        tracer: Tracer = OFF,
    ) -> None:
        self.name = name
        self.settings = settings
        self.metrics = metrics
        self.vitals = vitals
        self.tracer = tracer
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Not ready from now on; then the work ends."""
        self.vitals.stop()
        self.stopping.set()

    async def until_stopped(
        self,
        *parts: Coroutine[Any, Any, None],
        wind_down: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Run `parts` together until `stopping` is set; then cancel them and wait for their end.

        A part that fails ends the others and its error is raised; a part that returns is done.
        `wind_down` runs between the two, while the parts still work.
        """
        running = {asyncio.ensure_future(part) for part in parts}
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            while running and not stop.done():
                done, _ = await asyncio.wait({*running, stop}, return_when=asyncio.FIRST_COMPLETED)
                running -= done
                for part in done - {stop}:
                    part.result()
            if wind_down is not None:
                await wind_down()
        finally:
            await _cancelled(stop, *running)


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("part_failed_while_stopping", error=repr(outcome))


def halted_before(home: Path | None) -> str | None:
    """Why the process of this folder has halted, cut at `CAUSE_CHARACTERS_MAX`; None if it has
    not.
    """
    if home is None:
        return None
    try:
        with (home / HALTED_FILE).open(encoding="utf-8", errors="replace") as file:
            return file.read(CAUSE_CHARACTERS_MAX).strip()
    except FileNotFoundError:
        return None


def run(name: str, main: Callable[[Lifecycle], Awaitable[None]]) -> int:
    """Run `main` to its end and return the exit code of the process."""
    setproctitle(f"nocturne-{name}")
    bound_what_is_kept()
    try:
        settings = ProcessSettings()
    except ValidationError as fault:
        return _settings_are_wrong(name, fault)
    configure_logs(name, settings.log_level)
    metrics, vitals = Metrics(name), Vitals()
    measures = ProcessMetrics(metrics, name, vitals)
    server = None
    tracer = OFF
    try:
        if settings.metrics_listen is not None:
            server = HttpServer(metrics.registry, vitals, settings.metrics_listen)
        tracer = tracer_of(name, settings.otlp_endpoint, settings.trace_ratio, measures)
        return _run(Lifecycle(name, settings, metrics, vitals, tracer), main, measures)
    except NocturneError as error:
        log.error("failed", error=str(error), kind=type(error).__name__)
        return EXIT_FAILED
    finally:
        tracer.close()
        if server is not None:
            server.close()


def _run(
    lifecycle: Lifecycle,
    main: Callable[[Lifecycle], Awaitable[None]],
    measures: ProcessMetrics,
) -> int:
    cause = halted_before(lifecycle.settings.home_dir)
    if cause is not None:
        return _halted(lifecycle, cause)
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is loaded stays: it need not be looked through again.
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(lifecycle, main, measures))
    except Exception as error:
        return _ended_by(lifecycle, error)
    log.info("stopped")
    return EXIT_OK


async def _main(
    lifecycle: Lifecycle, main: Callable[[Lifecycle], Awaitable[None]], measures: ProcessMetrics
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lifecycle.stop)
    log.info("starting", pid=os.getpid())
    turning = asyncio.ensure_future(_turn(lifecycle.vitals, measures))
    work = asyncio.ensure_future(main(lifecycle))
    stop = asyncio.ensure_future(lifecycle.stopping.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not work.done():
            log.info("stopping")
            await asyncio.wait({work}, timeout=STOP_SECONDS_MAX)
        if not work.done():
            log.warning("stopping_takes_too_long", seconds=STOP_SECONDS_MAX)
            work.cancel()
            await asyncio.wait({work}, timeout=1.0)
            return
        work.result()
    finally:
        turning.cancel()


async def _turn(vitals: Vitals, measures: ProcessMetrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        vitals.turned()
        now = loop.time()
        wait = seconds_to_tick(now, TURN_SECONDS)
        await asyncio.sleep(wait)
        measures.loop_delay.observe(max(0.0, loop.time() - now - wait))


def _ended_by(lifecycle: Lifecycle, error: Exception) -> int:
    halt = _halt_in(error)
    if halt is not None:
        _write_halted(lifecycle.settings.home_dir, str(halt))
        return _halted(lifecycle, str(halt))
    if isinstance(error, ValidationError):
        return _settings_are_wrong(lifecycle.name, error)
    if isinstance(error, NocturneError):
        log.error("failed", error=str(error), kind=type(error).__name__)
    else:
        log.error("failed", exc_info=error)
    return EXIT_FAILED


def _halted(lifecycle: Lifecycle, cause: str) -> int:
    """Say it, and with ON_HALT=stay return only when the process is told to stop."""
    settings = lifecycle.settings
    log.error("halted", cause=cause, home=str(settings.home_dir), stays=settings.on_halt == "stay")
    if settings.on_halt == "stay":
        # The event loop is gone: plain signals, before anybody can see that it halted.
        told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: told.set())
        lifecycle.vitals.halt(cause)
        told.wait()
    return EXIT_HALTED


def _halt_in(error: BaseException) -> Halt | None:
    """The halt that `error` is or, as a group of errors, holds."""
    if isinstance(error, Halt):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((halt for one in error.exceptions if (halt := _halt_in(one))), None)
    return None


def _write_halted(home: Path | None, cause: str) -> None:
    if home is None:
        return
    home.mkdir(parents=True, exist_ok=True)
    with (home / HALTED_FILE).open("w", encoding="utf-8") as file:
        file.write(cause + "\n")
        file.flush()
        os.fsync(file.fileno())


def _settings_are_wrong(name: str, fault: ValidationError) -> int:
    for error in fault.errors(include_url=False, include_input=False):
        variable = PREFIX + "_".join(str(part) for part in error["loc"]).upper()
        print(f"nocturne-{name}: {variable}: {error['msg']}", file=sys.stderr)
    return EXIT_SETTINGS
