"""rebuild: make the read model anew from the log, beside the live one, and put it in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from nocturne.cli import surroundings
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import plain
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.words import count_text

INTERRUPTED_CODES: Final = (130, 143)
_WORDS: Final = {"altered": "altered", "missing": "missing", "extra": "too many"}


def rebuild(
    context: typer.Context,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Put it in the live one's place even if they differ."),
    ] = False,
    keep_old: Annotated[
        bool,
        typer.Option("--keep-old", help="Keep what was live under another name, not drop it."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, not where an earlier rebuild ended.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Rebuild the read model from the log while everything goes on, compare, and swap."""
    around = surroundings.of(context)
    place = around.home(home).root
    wishes = (("--replace", replace), ("--keep-old", keep_old), ("--fresh", fresh))
    said: dict[str, Any] = {}
    with _bar(around) as show:

        def hear(line: dict[str, Any]) -> None:
            if "progress" in line:
                show(line["progress"])
            else:
                said.update(line)

        arguments = [name for name, wanted in wishes if wanted]
        code = around.machine().rebuild(place, arguments, hear)
    if code in INTERRUPTED_CODES:
        raise Failure(ExitCode.INTERRUPTED, "Interrupted: 'nocturne rebuild' goes on where it was.")
    if "report" not in said:
        what = said.get("failure") or f"The rebuild ended with exit code {code}"
        raise Failure(_exit_code(code), f"{what}: see {place}/logs/rebuild.log.")
    _tell(around, said["report"], as_json)


def _exit_code(code: int) -> ExitCode:
    known = (ExitCode.FAILED, ExitCode.BAD_USE, ExitCode.UNAVAILABLE)
    return ExitCode(code) if code in known else ExitCode.FAILED


def _tell(around: Surroundings, report: dict[str, Any], as_json: bool) -> None:
    differences = list(_differences(report["differences"]))
    if as_json:
        around.emit(report)
    elif report["outcome"] != "differs":
        around.out.print(_summary(report))
        for line in differences:
            around.out.print(Text(f"  was {line}", style="yellow"))
        for name in report["notCompared"]:
            around.out.print(Text(f"  not compared, of another version: {name}", style="dim"))
    if report["outcome"] == "differs":
        raise Failure(
            ExitCode.FAILED,
            f"The live read model differs from the log, as rebuilt through block "
            f"{report['height']}; nothing was swapped. 'nocturne rebuild --replace' puts the "
            "rebuilt one in its place.",
            differences,
        )


def _summary(report: dict[str, Any]) -> Text:
    went_on = report["wentOnFrom"]
    began = "" if went_on is None else f", going on from block {went_on}"
    rate = f"{report['events'] / max(report['seconds'], 0.001):,.0f}".replace(",", " ")
    held = ""
    if report["commitsHeldMs"] is not None:
        held = (
            f"  commits held {report['commitsHeldMs']:.0f} ms, "
            f"readers {report['readersHeldMs']:.0f} ms"
        )
    kept = "" if report["kept"] is None else f"\n  what was live is kept as {report['kept']}"
    word = "equal to the live one" if report["equal"] else "replaced the live one"
    events = count_text(report["events"], "event")
    return Text.assemble(
        ("✓ ", "green"),
        f"rebuilt through block {report['height']}{began}: {word}, and live now",
        (f"\n  {events} in {report['seconds']:.1f} s, {rate}/s{held}{kept}", "dim"),
    )


def _differences(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """`events: 1 altered (session=a, sequence=3: header)`."""
    for one in found:
        counts = ", ".join(f"{one[name]} {word}" for name, word in _WORDS.items() if one[name])
        named = "; ".join(
            plain(row["key"]) + (f": {', '.join(row['columns'])}" if row["columns"] else "")
            for row in one["first"]
        )
        parts = (one["fault"] or "", counts + (f" ({named})" if named else ""))
        yield f"{one['table']}: " + "; ".join(part for part in parts if part)


@contextmanager
def _bar(around: Surroundings) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Heights, speed and time left on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", style="dim"),
    )
    shown = around.err.is_terminal
    with Progress(*columns, console=around.err, transient=True, disable=not shown) as bar:
        task = bar.add_task("starting", total=None, speed="")

        def show(progress: dict[str, Any]) -> None:
            left = progress["etaSeconds"]
            speed = f"{progress['eventsPerSecond']:,.0f} events/s".replace(",", " ")
            if left is not None:
                speed += f", {left:.0f} s left"
            known = {} if progress["total"] is None else {"total": progress["total"]}
            bar.update(
                task,
                description=progress["stage"],
                completed=progress["height"],
                speed=speed,
                **known,
            )

        yield show
