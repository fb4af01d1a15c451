"""Answer questions about the ledger and change nothing: `python -m nocturne.query`."""

from __future__ import annotations

import sys

from nocturne.query.service import Settings, serve_query
from nocturne.runtime.lifecycle import Lifecycle, run


async def main(lifecycle: Lifecycle) -> None:
    """Read the settings and serve until stopped."""
    await serve_query(lifecycle, Settings())  # type: ignore[call-arg]


if __name__ == "__main__":
    sys.exit(run("query", main))
