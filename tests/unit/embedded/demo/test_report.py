"""The report: one page, nothing loaded, strangers' text never markup, the verdict as measured."""

from __future__ import annotations

import random
import re
import signal
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from tests.vectors.synthetic import example_ledger

from nocturne.embedded.demo import __main__ as demo
from nocturne.embedded.demo import charts, proof, report
from nocturne.embedded.demo.findings import (
    Audit,
    Burst,
    Counts,
    Findings,
    History,
    Light,
    Phase,
    Proof,
    RefusedFor,
    Samples,
    Verdict,
)

TEMPLATE = (resources.files("nocturne.embedded.demo") / "report.html").read_text("utf-8")
VOID = {"meta", "br", "rect", "path", "link", "img", "input", "hr"}


def _proof() -> Proof:
    ledger = example_ledger()
    lines = ledger.export("orders/1")
    return proof.chain_of(lines[1], lines[2], 0, "finance")


def _samples(level: str) -> Samples:
    dice = random.Random(level)
    return Samples.of(level, [dice.gammavariate(9, 1.6) for _ in range(300)])


def _findings() -> Findings:
    return Findings(
        "sha256-" + "ab" * 32,
        "2026-11-21 09:40 UTC",
        "Linux, 2 cores",
        7,
        (Phase("start", 9.0), Phase("attacks", 5.5)),
        Counts(5000, 6998, 59, 211, 140, (RefusedFor("REPEATED", "Sent twice", 12),)),
        Burst(4500, 1.5, "signed"),
        Light(100, (_samples("certified"), _samples("signed"))),
        History("git/nocturne/main", 31, 0.4),
        _proof(),
        (Verdict("A flipped byte", "One bit", True, "verify", "line 3: not in its one encoding"),),
        Audit(212, 212, 7000, 59, 18_000_000, 8.0, ()),
    )


class _Page(HTMLParser):
    """Checks that tags close in order, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_loads_and_runs_nothing() -> None:
    text = report.render(_findings(), TEMPLATE)
    page = _Page(text)
    loading = {"src", "href", "srcset", "data", "action", "poster"}
    assert [one for one in page.attributes if one[1] in loading] == []
    assert [one for one in page.attributes if one[1].startswith("on")] == []
    assert not re.search(r"https?://|@import|url\(|<script|\$[a-z{]", text)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_page_has_one_heading_a_language_and_labelled_tables_and_pictures() -> None:
    page = _Page(report.render(_findings(), TEMPLATE))
    assert ("html", "lang", "en") in page.attributes
    pictures = [one for one in page.attributes if one[0] == "svg" and one[1] == "role"]
    labels = [one for one in page.attributes if one[0] == "svg" and one[1] == "aria-label"]
    assert len(pictures) == len(labels) == 2
    scopes = {one[2] for one in page.attributes if one[0] == "th" and one[1] == "scope"}
    assert scopes == {"row", "col"}


def test_the_headline_says_what_was_found() -> None:
    good = _findings()
    assert "All 1 attacks were caught" in report.headline(good)
    missed = replace(good, verdicts=(replace(good.verdicts[0], caught=False),))
    assert "does not hold" in report.headline(missed)
    assert 'class="broken"' in report.render(missed, TEMPLATE)
    failed = replace(good, audit=replace(good.audit, verified=211, failures=("orders/1: event 3",)))
    assert not failed.holds
    assert "orders/1: event 3" in report.render(failed, TEMPLATE)


def test_without_attacks_nothing_is_claimed_to_hold() -> None:
    assert not replace(_findings(), verdicts=()).holds


def test_text_of_strangers_is_text_on_the_page() -> None:
    findings = _findings()
    bad = replace(findings.proof, payload="<script>alert(1)</script> $ledger_id")
    text = report.render(replace(findings, proof=bad), TEMPLATE)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $ledger_id" in text


def test_the_chain_goes_from_the_author_to_the_authority() -> None:
    titles = [link.title for link in _proof().links]
    assert titles == [
        "Author's signature",
        "Command",
        "Disposition",
        "Merkle path",
        "Block header",
        "Commit proof",
        "Authority's signature",
    ]
    page = _Page(report.render(_findings(), TEMPLATE))
    for title in titles:
        assert title in page.text


@pytest.mark.parametrize(
    "percent, expected", [(1, 1.0), (50, 5.0), (90, 9.0), (99, 10.0), (100, 10.0)]
)
def test_percentiles_are_nearest_ranks(percent: float, expected: float) -> None:
    samples = Samples.of("signed", [float(number) for number in range(10, 0, -1)])
    assert samples.percentile(percent) == expected


@pytest.mark.parametrize("ms", [0.02, 0.9, 7.0, 42.0, 980.0, 61_000.0])
def test_a_histogram_is_drawn_at_any_scale(ms: float) -> None:
    picture = charts.histograms([Samples.of("signed", [ms, ms * 1.1, ms * 0.4])])
    assert picture.count('class="tick"') in range(3, 12)
    assert picture.startswith("<svg")


def test_long_hashes_are_shortened_and_short_texts_stay() -> None:
    assert report.short("sha256-" + "0123456789abcdef" * 4) == "sha256-0123456789ab…abcdef"
    assert report.short("5") == "5"


@pytest.mark.parametrize("caught, code", [(True, 0), (False, 1)])
def test_an_attack_that_nothing_caught_fails_the_demonstration(
    caught: bool, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = _findings()
    findings = replace(found, verdicts=(replace(found.verdicts[0], caught=caught),))

    async def shown(*_: object) -> Findings:
        return findings

    monkeypatch.setattr(demo, "show", shown)
    monkeypatch.setattr(demo, "_start", lambda *_: None)
    monkeypatch.setattr(demo, "_place", lambda *_: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["demo", "--report", str(tmp_path / "out" / "page.html")])
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert demo.main() == code
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert (tmp_path / "out" / "page.html").read_text("utf-8").startswith("<!doctype html>")
