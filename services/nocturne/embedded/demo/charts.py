"""Pictures of the report as inline SVG, coloured by the page's own style. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from nocturne.embedded.demo.findings import Proof, Samples

WIDTH: Final = 720
PANEL_HEIGHT: Final = 138
_LEFT: Final = 8
_RIGHT: Final = 8
_TOP: Final = 48
_AXIS: Final = 26
_BINS: Final = 60
_STEPS: Final = (1, 2, 2.5, 5, 10)
_TICKS_MAX: Final = 9
_MEDIAN: Final = 50
_LABEL_WIDTH: Final = 110
_ROW: Final = 42
_NODE_WIDTH: Final = 190
_NODE_HEIGHT: Final = 26
_WAY_X: Final = 1
_BESIDE_X: Final = 240


def histograms(series: Sequence[Samples]) -> str:
    """One panel a series under each other, on one scale of milliseconds that begins at 0."""
    scale = _scale_of(series)
    height = PANEL_HEIGHT * len(series) + _AXIS
    panels = "".join(
        _panel(samples, scale, index * PANEL_HEIGHT) for index, samples in enumerate(series)
    )
    axis = _axis(scale, PANEL_HEIGHT * len(series))
    title = "; ".join(
        f"{one.level}: half within {one.percentile(50):.1f} ms, 99 % within "
        f"{one.percentile(99):.1f} ms"
        for one in series
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Latency histograms. {escape(title)}">{panels}{axis}</svg>'
    )


def merkle_path(proof: Proof) -> str:
    """The way from the event's leaf up to the root, with the hashes that stand beside it."""
    levels = len(proof.path)
    bottom = _ROW * levels + _NODE_HEIGHT // 2 + 1
    parts = []
    for level, beside in enumerate(proof.path):
        below, above = bottom - _ROW * level, bottom - _ROW * (level + 1)
        up = below - _NODE_HEIGHT // 2
        joins = f"M{_BESIDE_X + _NODE_WIDTH // 2} {up} V{above} H{_WAY_X + _NODE_WIDTH}"
        rises = f"M{_WAY_X + _NODE_WIDTH // 2} {up} V{above + _NODE_HEIGHT // 2}"
        parts.append(f'<path class="edge weak" d="{joins}"/><path class="edge" d="{rises}"/>')
        parts.append(_node(_BESIDE_X, below, _short(beside), "beside"))
    for level in range(levels + 1):
        parts.append(_node(_WAY_X, bottom - _ROW * level, _path_name(level, proof), "way"))
    label = f"Merkle path of {levels} hashes from the leaf to the dispositions root"
    width, height = _BESIDE_X + _NODE_WIDTH + 1, bottom + _NODE_HEIGHT // 2 + 1
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" class="merkle" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _path_name(level: int, proof: Proof) -> str:
    if level == 0:
        return f"leaf {_short(proof.leaf)}"
    return f"root {_short(proof.root)}" if level == len(proof.path) else "hash of both"


def _node(x: int, y: int, text: str, style: str) -> str:
    return (
        f'<g class="node {style}"><rect x="{x}" y="{y - _NODE_HEIGHT // 2}" '
        f'width="{_NODE_WIDTH}" height="{_NODE_HEIGHT}" rx="5"/>'
        f'<text x="{x + _NODE_WIDTH // 2}" y="{y + 4}">{escape(text)}</text></g>'
    )


def _short(text: str) -> str:
    digits = text.removeprefix("sha256-")
    return f"{digits[:8]}…{digits[-4:]}"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Milliseconds to pixels."""

    end_ms: float
    step_ms: float

    def x(self, ms: float) -> float:
        inside = WIDTH - _LEFT - _RIGHT
        return _LEFT + inside * min(ms, self.end_ms) / self.end_ms

    @property
    def bin_ms(self) -> float:
        return self.end_ms / _BINS


def _scale_of(series: Sequence[Samples]) -> _Scale:
    """To a round number past every p99; what is beyond counts in the last bin."""
    wanted = max(max(one.percentile(99) for one in series) * 1.15, 1.0)
    magnitude = 10 ** math.floor(math.log10(wanted / _TICKS_MAX))
    step = next(s * magnitude for s in (*_STEPS, 20) if s * magnitude * _TICKS_MAX >= wanted)
    return _Scale(math.ceil(wanted / step) * step, step)


def _panel(samples: Samples, scale: _Scale, top: int) -> str:
    counts = [0] * _BINS
    for ms in samples.ms:
        counts[min(int(ms / scale.bin_ms), _BINS - 1)] += 1
    room = PANEL_HEIGHT - _TOP
    highest = max(counts)
    width = (WIDTH - _LEFT - _RIGHT) / _BINS
    bars = "".join(
        f'<rect class="bar" x="{_LEFT + index * width + 0.5:.1f}" '
        f'y="{top + PANEL_HEIGHT - room * count / highest:.1f}" '
        f'width="{width - 1:.1f}" height="{room * count / highest:.1f}"/>'
        for index, count in enumerate(counts)
        if count
    )
    name = (
        f'<text class="name" x="{_LEFT}" y="{top + 20}">{escape(samples.level)} '
        f'<tspan class="weak">{len(samples.ms)} commands</tspan></text>'
    )
    marks = _mark(samples, _MEDIAN, scale, top, room) + _mark(samples, 99, scale, top, room)
    base = top + PANEL_HEIGHT
    line = f'<path class="axis" d="M{_LEFT} {base} H{WIDTH - _RIGHT}"/>'
    return f'<g class="panel">{bars}{line}{marks}{name}</g>'


def _mark(samples: Samples, percent: int, scale: _Scale, top: int, room: int) -> str:
    """A percentile's line, its value beside its top: left of the median, right of the others."""
    ms = samples.percentile(percent)
    x = scale.x(ms)
    bottom = top + PANEL_HEIGHT
    leftward = x > (_LABEL_WIDTH if percent == _MEDIAN else WIDTH - _LABEL_WIDTH)
    anchor, shift = ("end", -5) if leftward else ("start", 5)
    return (
        f'<path class="mark" d="M{x:.1f} {bottom} V{bottom - room - 14}"/>'
        f'<text class="mark" x="{x + shift:.1f}" y="{bottom - room - 5}" '
        f'text-anchor="{anchor}">p{percent} {ms:.1f} ms</text>'
    )


def _axis(scale: _Scale, top: int) -> str:
    count = round(scale.end_ms / scale.step_ms)
    parts = []
    for index in range(count + 1):
        ms = index * scale.step_ms
        anchor = "start" if index == 0 else "end" if index == count else "middle"
        unit = " ms" if index == count else ""
        parts.append(
            f'<text class="tick" x="{scale.x(ms):.1f}" y="{top + 18}" '
            f'text-anchor="{anchor}">{ms:g}{unit}</text>'
        )
    return "".join(parts)
