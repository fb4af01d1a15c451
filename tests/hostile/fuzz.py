"""Fuzz every parser with Hypothesis for a while: `make fuzz FUZZ_SECONDS=120`.

Each parser gets an equal share. A failure is shrunk, shown with its seed, and ends with code 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random
from typing import Final

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tests.hostile.inputs import hostile_bytes
from tests.hostile.parsers import PARSERS, Parser

BATCH: Final = 200
"""Inputs between two looks at the clock."""


def main() -> int:
    """Fuzz for the seconds asked for; the exit code."""
    asked = _arguments()
    chosen = [one for one in PARSERS if asked.only in one.name]
    if not chosen:
        print(f"No parser is named like {asked.only!r}.", file=sys.stderr)
        return 2
    print(f"fuzz: {len(chosen)} parsers, {asked.seconds} s, seed {asked.seed}")
    failed = 0
    ends = time.monotonic() + asked.seconds
    for number, parser in enumerate(chosen):
        share = max(0.0, ends - time.monotonic()) / (len(chosen) - number)
        failed += not _fuzz(parser, asked.seed, share)
    print(f"fuzz: {failed} of {len(chosen)} parsers broke their word" if failed else "fuzz: passed")
    return 1 if failed else 0


def _fuzz(parser: Parser, first_seed: int, seconds: float) -> bool:
    """Batches of inputs until the time is over, one at least; False when one broke the parser."""
    started = time.monotonic()
    tried = batches = 0
    while batches == 0 or time.monotonic() - started < seconds:
        try:
            tried += _batch(parser, first_seed + batches)
        except Exception as fault:
            # Hypothesis put the smallest input that it found into the notes.
            print(f"{parser.name}: {type(fault).__name__}: {fault}", file=sys.stderr)
            for note in getattr(fault, "__notes__", ()):
                print(f"    {note}", file=sys.stderr)
            replay = f"FUZZ_SEED={first_seed + batches} FUZZ_ONLY='{parser.name}'"
            print(f"    replay: make fuzz FUZZ_SECONDS=1 {replay}", file=sys.stderr)
            return False
        batches += 1
    print(f"  {parser.name}: {tried} inputs")
    return True


def _batch(parser: Parser, batch_seed: int) -> int:
    tried = 0
    valid = parser.samples()

    @seed(batch_seed)
    @settings(
        max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        parser.valid
        | st.binary(max_size=300)
        | st.randoms(use_true_random=False).map(lambda dice: hostile_bytes(dice, valid))
        | st.randoms(use_true_random=True).map(lambda dice: hostile_bytes(dice, valid))
    )
    def check(data: bytes) -> None:
        nonlocal tried
        tried += 1
        parser.check(data)

    check()
    return tried


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=120.0)
    arguments.add_argument("--seed", type=int, default=Random().randrange(2**32))
    arguments.add_argument("--only", default="", metavar="NAME", help="parsers with this in it")
    return arguments.parse_args()


if __name__ == "__main__":
    sys.exit(main())
