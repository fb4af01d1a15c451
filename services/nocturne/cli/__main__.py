"""`nocturne`: run one command line, and end with its exit code."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> int:
    """The entry point of the console script; returns the exit code."""
    try:
        # Here, so that a Ctrl-C while modules are read is as quiet as one later.
        from nocturne.cli.line import run_here

        return run_here()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
