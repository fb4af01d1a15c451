"""How many messages a committed block costs when nothing goes wrong: make traffic.

Quadratic by choice up to 16 validators, which gives two message delays a block; above, votes go to
leaders, who send certificates to all: a constant times n.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from tests.simulation.plan import Plan
from tests.simulation.world import World

from nocturne.consensus.quorum.leaders import EVERYONE_MAX

SIZES: Final = (4, 7, 16, 17, 31, 100)
HEIGHTS: Final = 14
PER_VALIDATOR_MAX: Final = 12
"""The c of c·n above `EVERYONE_MAX`."""


def main() -> None:
    """Exit code 1 when it is more than c·n."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heights", type=int, default=HEIGHTS)
    options = parser.parse_args()
    worst = 0.0
    print("    n  messages/block       /n      /n²  by kind")
    for n in SIZES:
        each, kinds = cost(n, options.heights)
        if n > EVERYONE_MAX:
            worst = max(worst, each / n)
        print(f"{n:>5}  {each:>14.1f}  {each / n:>7.2f}  {each / n**2:>7.2f}  {kinds}", flush=True)
    print(f"above {EVERYONE_MAX}: at most {worst:.2f}·n, allowed {PER_VALIDATOR_MAX}·n")
    sys.exit(1 if worst > PER_VALIDATOR_MAX else 0)


def cost(n: int, heights: int) -> tuple[float, str]:
    """Messages for each committed block among `n`, and what they are."""
    world = World(Plan.quiet(n, heights))
    world.run()
    blocks = len(world.truth)
    kinds = ", ".join(
        f"{name} {count / blocks:.1f}" for name, count in sorted(world.network.sent.items())
    )
    return sum(world.network.sent.values()) / blocks, kinds


if __name__ == "__main__":
    main()
