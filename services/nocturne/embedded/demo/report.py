"""The report: findings in, one self-contained HTML page out. Pure.

Nothing on the page is loaded from elsewhere, nothing runs. Text of a ledger was written by
strangers, so all of it is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Final

from nocturne.embedded.demo import charts
from nocturne.embedded.demo.findings import Field, Findings, Link, Proof, Samples, Verdict
from nocturne.embedded.demo.proof import MERKLE_PATH

PERCENTILES: Final = (50, 90, 99)
_HASH_HEAD: Final = 12
_HASH_TAIL: Final = 6
_HASH: Final = re.compile(r"(?:sha256|ed25519)-[0-9a-f]{32,}")


def render(findings: Findings, template: str) -> str:
    """The page of `findings`; `template` is the text of `report.html`."""
    counts = findings.counts
    return Template(template).substitute(
        verdict_class="holds" if findings.holds else "broken",
        headline=escape(headline(findings)),
        standfirst=escape(_standfirst(findings)),
        made_at=escape(findings.made_at),
        machine=escape(findings.machine),
        seed=str(findings.seed),
        ledger_id=escape(findings.ledger_id),
        figures=_figures(findings),
        commands=number(counts.commands),
        events=number(counts.events),
        receipts=number(counts.receipts),
        sessions=number(counts.sessions),
        refusals=_rows(
            (_code(one.reason), escape(one.meaning), number(one.count)) for one in counts.refused
        ),
        history=_history(findings),
        burst_commands=number(findings.burst.commands),
        burst_seconds=f"{findings.burst.seconds:.1f}",
        burst_rate=number(findings.burst.per_second),
        burst_level=escape(findings.burst.level),
        light_rate=f"{findings.light.commands_per_second:g}",
        latency_picture=charts.histograms(findings.light.samples),
        latency_table=_rows(_latency_row(one) for one in findings.light.samples),
        proof_title=escape(
            f"{findings.proof.event_type}, event {findings.proof.sequence} of "
            f"{findings.proof.session}"
        ),
        proof_payload=escape(findings.proof.payload),
        proof_links=_links(findings.proof),
        attacks=_rows(map(_attack_row, findings.verdicts)),
        audit=escape(audit_sentence(findings)),
        failures=_failures(findings.audit.failures),
        phases=_rows((escape(phase.name), f"{phase.seconds:.1f} s") for phase in findings.phases),
        seconds=f"{findings.seconds:.0f}",
    )


def headline(findings: Findings) -> str:
    """The verdict in one sentence."""
    attacks = len(findings.verdicts)
    audit = findings.audit
    if findings.holds:
        return (
            f"All {attacks} attacks were caught, and all {number(audit.exports)} exports verify "
            "offline."
        )
    return (
        f"{findings.caught} of {attacks} attacks were caught, and {number(audit.verified)} of "
        f"{number(audit.exports)} exports verify offline: this ledger does not hold."
    )


def audit_sentence(findings: Findings) -> str:
    """What was checked without the ledger's help."""
    audit = findings.audit
    return (
        f"{number(audit.verified)} of {number(audit.exports)} session exports verified with "
        f"nothing but the ledger id: {number(audit.events)} events and {number(audit.receipts)} "
        f"receipts in {audit.bytes / 1e6:.1f}\u00a0MB, in {audit.seconds:.1f}\u00a0s."
    )


def number(value: float) -> str:
    """`5 000`, with a space that does not break."""
    return f"{value:,.0f}".replace(",", "\u202f")


def short(text: str) -> str:
    """A hash or signature by its first and last digits, its name before them."""
    name, dash, digits = text.rpartition("-")
    if len(digits) <= _HASH_HEAD + _HASH_TAIL:
        return text
    return f"{name}{dash}{digits[:_HASH_HEAD]}…{digits[-_HASH_TAIL:]}"


def _standfirst(findings: Findings) -> str:
    counts = findings.counts
    return (
        f"A company's purchases, {number(counts.commands)} signed commands, became "
        f"{number(counts.events)} certified events and {number(counts.receipts)} signed refusals "
        f"on one machine, {number(findings.burst.per_second)} commands a second at full speed. "
        "Then the demonstration attacked its own ledger."
    )


def _figures(findings: Findings) -> str:
    certified = findings.light.samples[0]
    pairs = (
        ("commands decided", number(findings.counts.commands)),
        ("certified events", number(findings.counts.events)),
        ("signed refusals", number(findings.counts.receipts)),
        ("sessions", number(findings.counts.sessions)),
        ("commands a second", number(findings.burst.per_second)),
        (f"ms to {certified.level}, median", f"{certified.percentile(50):.1f}"),
        ("attacks caught", f"{findings.caught} of {len(findings.verdicts)}"),
        ("exports verified", f"{number(findings.audit.verified)}"),
    )
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )


def _history(findings: Findings) -> str:
    history = findings.history
    if history is None:
        return "There was no git history beside the demonstration, so none was imported."
    return (
        f"This repository's own git history went in as well: {number(history.commits)} commits "
        f"as {number(history.commits)} events of the session {_code(history.session)}, in "
        f"{history.seconds:.1f} s."
    )


def _latency_row(samples: Samples) -> tuple[str, ...]:
    values = [f"{samples.percentile(percent):.1f}" for percent in PERCENTILES]
    return (escape(samples.level), *values, f"{samples.ms[-1]:.1f}")


def _attack_row(verdict: Verdict) -> tuple[str, ...]:
    mark = "caught" if verdict.caught else "missed"
    evidence = _HASH.sub(_shorter, verdict.evidence)
    sign = "✓ caught" if verdict.caught else "✗ not caught"
    return (
        escape(verdict.attack),
        escape(verdict.done),
        f"{escape(verdict.caught_by)}<small>{escape(evidence)}</small>",
        f'<span class="{mark}">{sign}</span>',
    )


def _shorter(found: re.Match[str]) -> str:
    return short(found[0])


def _links(proof: Proof) -> str:
    return "".join(_link(link, proof) for link in proof.links)


def _link(link: Link, proof: Proof) -> str:
    picture = charts.merkle_path(proof) if link.title == MERKLE_PATH and proof.path else ""
    binds = f'<p class="binds">{escape(link.binds)}</p>' if link.binds else ""
    return (
        f"<li><h3>{escape(link.title)}</h3><p>{escape(link.sentence)}</p>"
        f"{_fields(link.fields)}{picture}{binds}</li>"
    )


def _fields(fields: Sequence[Field]) -> str:
    if not fields:
        return ""
    inside = "".join(f"<dt>{escape(one.name)}</dt><dd>{_value(one)}</dd>" for one in fields)
    return f"<dl>{inside}</dl>"


def _value(field: Field) -> str:
    if not field.is_hash:
        return escape(field.value)
    return f'<code title="{escape(field.value)}">{escape(short(field.value))}</code>'


def _failures(failures: Sequence[str]) -> str:
    if not failures:
        return ""
    return f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in failures)}</ul>"


def _rows(rows: Iterable[Sequence[str]]) -> str:
    """Table rows of cells that are HTML already; the first cell of each heads its row."""
    return "".join(
        f'<tr><th scope="row">{head}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for head, *cells in rows
    )


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
