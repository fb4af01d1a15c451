"""Rebuild the read model beside the live one: `python -m nocturne.projection.rebuild --help`.

Runs with the owner's address in NOCTURNE_POSTGRES_DSN, as migrations do, NOCTURNE_KAFKA_BOOTSTRAP
and NOCTURNE_GENESIS_FILE. Every line of stdout is a JSON object: `progress` now and then, at the
end one `report` or one `failure`. Exit codes: 0 the rebuilt one is live, 1 they differ or it was
refused, 2 settings, 3 Kafka or PostgreSQL is away; 130 and 143 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from pydantic import ValidationError

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.strict_json import JsonValue
from nocturne.projection.comparing import TableDifference
from nocturne.projection.fold import FirstState
from nocturne.projection.rebuilding import Outcome, Progress, Rebuild, Report, Wishes
from nocturne.runtime.settings import (
    PREFIX,
    ClusterSettings,
    DatabaseSettings,
    ProcessSettings,
    read_founding,
    read_settings,
)
from nocturne.runtime.telemetry import configure_logs

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
EXIT_UNAVAILABLE: Final = 3
EXIT_SIGNALLED: Final = 128

log = structlog.get_logger()


class Settings(ProcessSettings, ClusterSettings, DatabaseSettings):
    """What a rebuild reads from the environment."""

    genesis_file: Path


def main() -> int:
    """Run one rebuild; the exit code."""
    wishes = _wishes()
    try:
        settings = read_settings(Settings)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_input=False):
            variable = PREFIX + "_".join(str(part) for part in error["loc"]).upper()
            print(f"rebuild: {variable}: {error['msg']}", file=sys.stderr)
        return EXIT_SETTINGS
    configure_logs("rebuild", settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_until_signalled(settings, wishes))
    except NocturneError as fault:
        log.error("failed", error=str(fault), kind=type(fault).__name__)
        _say({"failure": str(fault)})
        return EXIT_UNAVAILABLE if isinstance(fault, Unavailable) else EXIT_FAILED


def _wishes() -> Wishes:
    parser = argparse.ArgumentParser(
        prog="python -m nocturne.projection.rebuild",
        description="Rebuild the read model beside the live one, compare, swap.",
    )
    parser.add_argument("--replace", action="store_true", help="swap even if they differ")
    parser.add_argument("--keep-old", action="store_true", help="do not drop what was live")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an earlier rebuild")
    given = parser.parse_args()
    return Wishes(given.replace, given.keep_old, given.fresh)


async def _until_signalled(settings: Settings, wishes: Wishes) -> int:
    first_state = FirstState.of(read_founding(settings.genesis_file).data)
    rebuild = Rebuild(settings.cluster, settings.database, first_state, wishes, _say_progress)
    work = asyncio.ensure_future(rebuild.run())
    signalled: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.put_nowait, number)
    stop = asyncio.ensure_future(signalled.get())
    either: set[asyncio.Future[Any]] = {work, stop}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        if work.cancelled():
            _say({"failure": "interrupted: run it again, and it goes on where it was"})
            return EXIT_SIGNALLED + int(stop.result())
    stop.cancel()
    report = work.result()
    _say({"report": report_json(report)})
    return EXIT_FAILED if report.outcome is Outcome.DIFFERS else EXIT_OK


def report_json(report: Report) -> JsonValue:
    """The report, in the names of the V-API."""
    differences = report.comparison.differences
    return {
        "outcome": report.outcome.value,
        "equal": not differences,
        "wentOnFrom": report.went_on_from,
        "height": report.height,
        "blocks": report.blocks,
        "events": report.events,
        "seconds": round(report.seconds, 3),
        "attempts": report.attempts,
        "commitsHeldMs": _rounded(report.commits_held_ms),
        "readersHeldMs": _rounded(report.readers_held_ms),
        "kept": report.kept,
        "differences": [_difference_json(one) for one in differences],
        "notCompared": list(report.comparison.skipped),
    }


def _difference_json(one: TableDifference) -> JsonValue:
    return {
        "table": one.table,
        "altered": one.altered,
        "missing": one.missing,
        "extra": one.extra,
        "fault": one.fault,
        "first": [
            {"key": row.key, "what": row.what, "columns": list(row.columns)} for row in one.first
        ],
    }


def _say_progress(progress: Progress) -> None:
    _say(
        {
            "progress": {
                "stage": progress.stage,
                "height": progress.height,
                "total": progress.total,
                "events": progress.events,
                "eventsPerSecond": round(progress.events_per_second, 1),
                "etaSeconds": _rounded(progress.eta_seconds),
            }
        }
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def _say(value: JsonValue) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main())
