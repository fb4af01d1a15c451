"""Keep the read model in PostgreSQL in step with the ledger: `python -m nocturne.projection`."""

from __future__ import annotations

import sys

from nocturne.projection.service import Settings, serve_projection
from nocturne.runtime.lifecycle import Lifecycle, run


async def main(lifecycle: Lifecycle) -> None:
    """Read the settings and run until stopped."""
    await serve_projection(lifecycle, Settings())  # type: ignore[call-arg]


if __name__ == "__main__":
    sys.exit(run("projection", main))
