"""Say in one sentence when the pinned packages have no wheels for this platform.

`make setup` runs it first, with the Python it was given: standard library only. The list is what
`uv pip sync --dry-run --only-binary :all: --python-platform …` finds for requirements/dev.lock.
"""

import os
import platform
import sys

GLIBC_NEEDED = (2, 28)
ANYWAY = "NOCTURNE_ANY_PLATFORM"


def why_not(system: str, machine: str, libc: str, version: str) -> str:
    """Why not every pinned package has a wheel here; empty when each has."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if (system, machine) == ("Darwin", "aarch64"):
        return ""
    if (system, machine) == ("Linux", "x86_64"):
        if libc == "glibc" and _numbers(version) >= GLIBC_NEEDED:
            return ""
        found = f"Linux on {machine} with {libc} {version}" if libc else "Linux without glibc"
    else:
        found = f"{system} on {machine}"
    return (
        f"Nocturne's packages have wheels for Linux on x86_64 (glibc {GLIBC_NEEDED[0]}."
        f"{GLIBC_NEEDED[1]} or later) and macOS on Apple silicon, and this is {found}: use one of "
        f"them, or build what lacks from source with '{ANYWAY}=1 make setup' and a C compiler."
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def main() -> int:
    """0 when there are wheels, or they are not asked for."""
    if os.environ.get(ANYWAY):
        return 0
    sentence = why_not(platform.system(), platform.machine(), *platform.libc_ver())
    if sentence:
        print(sentence, file=sys.stderr)
    return int(bool(sentence))


if __name__ == "__main__":
    sys.exit(main())
