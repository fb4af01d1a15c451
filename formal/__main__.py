"""`make proofs`: a line for each thing checked; ends with 1 if one is not as it must be."""

from __future__ import annotations

import os
import sys
import time
from itertools import chain
from pathlib import Path

from formal import coq_proofs, tla_models
from formal.results import processor_seconds
from nocturne.core.certificates import quorum
from nocturne.embedded.downloads import cache_folder


def main() -> int:
    """Check all, in build/formal, and go on after what fails."""
    build = Path.cwd() / "build" / "formal"
    began = time.monotonic()
    failed = total = 0
    for result in chain(
        coq_proofs.check(build / "coq", quorum),
        tla_models.check(build / "tla", cache_folder(os.environ), quorum),
    ):
        print(result.line(), flush=True)
        total += 1
        failed += not result.holds
    seconds = time.monotonic() - began
    print(
        f"make proofs: {total - failed} of {total} are as they must be "
        f"({seconds:.0f} s, {processor_seconds():.0f} s of processors)"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
