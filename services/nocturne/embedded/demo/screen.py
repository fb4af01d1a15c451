"""What the demonstration says on a terminal: calm lines, each when it is true; plain elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
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
            self.done(verdict.attack, f"caught by {verdict.caught_by}: {evidence}")
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
        columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn())
        with self._bar(name, *columns) as count:
            yield count

    @contextmanager
    def downloading(self) -> Iterator[Callable[[int, int, str], None]]:
        """A bar with sizes; elsewhere one line at the beginning."""
        said = False
        columns = (TextColumn("    {task.description}"), BarColumn(), DownloadColumn())
        with self._bar("downloading", *columns) as count:

            def progress(done: int, total: int, what: str) -> None:
                nonlocal said
                if not said and not self._console.is_terminal:
                    self.say(f"downloading {total / 1e6:.0f} MB, once; kept for the next time")
                said = True
                count(done, total)

            yield progress

    @contextmanager
    def _bar(
        self, name: str, *columns: TextColumn | BarColumn | DownloadColumn | MofNCompleteColumn
    ) -> Iterator[Count]:
        shown = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as bar:
            task = bar.add_task(name, total=None, visible=False)
            yield lambda done, total: bar.update(
                task, completed=done, total=total, visible=done < total
            )

    def _line(
        self,
        sign: str,
        sign_style: str,
        name: str,
        what: str,
        seconds: float | None,
        style: str = "",
    ) -> None:
        took = "" if seconds is None else f"  {seconds:.1f} s"
        self._console.print(
            Text.assemble(
                (f"  {sign} ", sign_style),
                (f"{name:<{NAME_WIDTH}}", style or "bold"),
                (what, style),
                (took, "dim"),
            ),
            soft_wrap=True,
        )


def latency_text(samples: Samples) -> str:
    """`certified p50 12.1 ms, p99 30.4 ms`."""
    return (
        f"{samples.level} p50 {samples.percentile(50):.1f} ms, p99 {samples.percentile(99):.1f} ms"
    )


def number(value: float) -> str:
    """`5 000`."""
    return f"{value:,.0f}".replace(",", " ")
