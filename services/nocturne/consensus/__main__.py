"""`python -m nocturne.consensus`: one validator."""

from __future__ import annotations

import sys

from nocturne.consensus.service import Settings
from nocturne.consensus.service import run as run_service
from nocturne.runtime import lifecycle


async def _main(life: lifecycle.Lifecycle) -> None:
    await run_service(Settings.model_validate({}), life)


def main() -> int:
    """Exit codes: `runtime.lifecycle`."""
    return lifecycle.run("consensus", _main)


if __name__ == "__main__":
    sys.exit(main())
