"""`python -m nocturne.signing`: the authority."""

from __future__ import annotations

import sys

from nocturne.runtime import lifecycle
from nocturne.signing.service import Settings
from nocturne.signing.service import run as run_service


async def _main(life: lifecycle.Lifecycle) -> None:
    await run_service(Settings.model_validate({}), life)


def main() -> int:
    """Exit codes: `runtime.lifecycle`."""
    return lifecycle.run("signing", _main)


if __name__ == "__main__":
    sys.exit(main())
