"""Latency percentiles as one self-contained SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, BOTTOM = 860, 420, 70, 50
PERCENTILES = (0.0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
COLOURS = ("#2458a6", "#b8431f", "#2f7d4f", "#6b4aa0")


def latency_svg(curves: Mapping[str, Sequence[float]]) -> str:
    """Curves of latency (ms, one value for each of `PERCENTILES`), logarithmic in latency."""
    highest = max((max(values) for values in curves.values()), default=1.0)
    top = 10 ** math.ceil(math.log10(max(highest, 10)))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'font-family="system-ui, sans-serif" font-size="13">'
        ),
        "<title>Latency by percentile</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for decade in range(int(math.log10(top)) + 1):
        y = _y(10**decade, top)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10**decade} ms</text>')
    for index, percentile in enumerate(PERCENTILES):
        parts.append(
            f'<text x="{_x(index)}" y="{HEIGHT - 20}" text-anchor="middle">p{percentile:g}</text>'
        )
    for number, (name, values) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{_x(i)},{_y(value, top)}" for i, value in enumerate(values))
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'
        )
        parts.append(f'<text x="{LEFT + 12}" y="{24 + 18 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(index: int) -> float:
    return LEFT + 20 + index * (WIDTH - LEFT - 60) / (len(PERCENTILES) - 1)


def _y(value: float, top: float) -> float:
    share = math.log10(max(value, 1)) / math.log10(top)
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 30), 1)
