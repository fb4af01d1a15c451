"""How far each service is behind, as its own metrics say. A service that says nothing has none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from nocturne.embedded import ports
from nocturne.embedded.home import Home

ANSWER_SECONDS_MAX: Final = 1.0
METRICS_BYTES_MAX: Final = 1 << 20

_HOST: Final = "127.0.0.1"
_SUFFIX: Final = "-metrics"
_LAG: Final = re.compile(
    r"^nocturne_\w+_(?:lag_records|lag_blocks|blocks_lag)(?:\{[^}]*\})? "
    r"(\d{1,18}(?:\.\d{1,18})?(?:e[+-]?\d{1,2})?)$",
    re.MULTILINE | re.ASCII,
)


def read(home: Home) -> Mapping[str, int]:
    """Records of its topics still to be taken, by process: commands, or blocks."""
    listening = {
        name.removesuffix(_SUFFIX): port
        for name, port in ports.load(home.ports).items()
        if name.endswith(_SUFFIX)
    }
    with ThreadPoolExecutor(max_workers=max(1, len(listening))) as pool:
        lags = pool.map(_lag_at, listening.values())
        return {name: lag for name, lag in zip(listening, lags, strict=True) if lag is not None}


def lag_in(metrics: str) -> int | None:
    """The largest lag of Prometheus text, over partitions and topics; None when there is none."""
    return max((int(float(value)) for value in _LAG.findall(metrics)), default=None)


def _lag_at(port: int) -> int | None:
    # No proxy of the environment stands between this machine and itself.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"http://{_HOST}:{port}/metrics", timeout=ANSWER_SECONDS_MAX) as answer:
            text: bytes = answer.read(METRICS_BYTES_MAX)
    except (URLError, OSError):
        # A service that is down shows as such in its health.
        return None
    return lag_in(text.decode("utf-8", "replace"))
