"""What the demonstration says on a terminal: calm lines, each when it is true; plain elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from nocturne.cli.screen import plain
from nocturne.embedded.demo.findings import Findings, Samples, Verdict
from nocturne.embedded.demo.report import headline

NAME_WIDTH: Final = 22
_PIPE_WIDTH: Final = 4096
_HASH: Final = re.compile(r"((?:sha256|ed25519)-[0-9a-f]{12})[0-9a-f]{20,}")

Count = Callable[[int, int], None]
"""Told how many are done, of how many."""


class Screen:
    """Writes to one console; a bar is shown only on a terminal, and leaves nothing behind."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @staticmethod
    def standard() -> Screen:
        """Standard output; as wide as it must be where nobody's terminal bounds it."""
        found = Console(highlight=False, markup=False, emoji=False)
        if found.is_terminal:
            return Screen(found)
        return Screen(Console(highlight=False, markup=False, emoji=False, width=_PIPE_WIDTH))

    def title(self, text: str) -> None:
        """A heading, an empty line above it."""
        self._console.print()
        self._console.print(Text(f"  {text}", style="bold"))

    def done(self, name: str, what: str, seconds: float | None = None) -> None:
        """Something went well."""
        self._line("✓", "green", name, what, seconds)

    def failed(self, name: str, what: str) -> None:
        """Something did not."""
        self._line("✗", "bold red", name, what, None)

    def note(self, name: str, what: str) -> None:
        """A detail of the line above."""
        self._line(" ", "", name, what, None, style="dim")

    def verdict(self, verdict: Verdict) -> None:
        """One attack: what caught it, and what that saw."""
        evidence = _HASH.sub(r"\1…", plain(verdict.evidence))
        if verdict.caught:
            said = f"caught by {verdict.caught_by}: {evidence}"
            self._line("✓", "green", verdict.attack, said, None, one_line=True)
        else:
            self.failed(verdict.attack, f"NOT CAUGHT: {evidence}")

    def summary(self, findings: Findings, report: Path) -> None:
        """The last lines."""
        self.title(headline(findings))
        self.note("report", str(report))

    def say(self, text: str = "") -> None:
        """A line as it is."""
        self._console.print(Text(f"  {text}" if text else ""), soft_wrap=True)

    @contextmanager
    def counting(self, name: str) -> Iterator[Count]:
        """A bar while the block runs."""
        shown = self._console.is_terminal
        columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def starting(self, what: str) -> Iterator[Callable[[int, int, str], None]]:
        """A sign of life while `what` starts; told of downloads, with their sizes."""
        said = False
        shown = self._console.is_terminal
        columns = (TextColumn("   "), SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as bar:
            task = bar.add_task(f"starting {what}")

            def progress(done: int, total: int, _: str) -> None:
                nonlocal said
                if not said and not shown:
                    self.say(f"downloading {total / 1e6:.0f} MB, once; kept for the next time")
                said = True
                sizes = f"downloading {done / 1e6:.1f} of {total / 1e6:.1f} MB, once"
                bar.update(task, description=sizes if done < total else f"starting {what}")

            yield progress

    def _line(
        self,
        sign: str,
        sign_style: str,
        name: str,
        what: str,
        seconds: float | None,
        style: str = "",
        one_line: bool = False,
    ) -> None:
        """`one_line` cuts what does not fit the terminal; the report has it whole."""
        took = "" if seconds is None else f"  {seconds:.1f} s"
        line = Text.assemble(
            (f"  {sign} ", sign_style),
            (f"{name:<{NAME_WIDTH}}", style or "bold"),
            (what, style),
            (took, "dim"),
        )
        if one_line and self._console.is_terminal:
            line.truncate(self._console.width, overflow="ellipsis")
        self._console.print(line, soft_wrap=True)


def latency_text(samples: Samples) -> str:
    """`certified p50 12.1 ms, p99 30.4 ms`."""
    return (
        f"{samples.level} p50 {samples.percentile(50):.1f} ms, p99 {samples.percentile(99):.1f} ms"
    )


def number(value: float) -> str:
    """`5 000`."""
    return f"{value:,.0f}".replace(",", " ")
