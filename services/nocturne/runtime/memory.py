"""What the allocator keeps of the memory that is given back to it.

glibc learns from the largest buffer freed: after one fetch of megabytes it keeps everything below
that size in its heaps, for each thread apart, and a heap ends at its last live byte. A service that
once read a flood stayed larger by twice the flood for ever, though nothing in it had grown. Fixed
thresholds keep large buffers out of the heaps (mallopt(3), M_MMAP_THRESHOLD).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

LARGE_BYTES: Final = 128 * 1024
"""A buffer of this size is the system's again when it is freed: glibc's first threshold."""
SPARE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Free at the end of a heap before it is shortened. With 128 KiB the heaps go up and down with
every batch: a tenth of the processor time of an event."""
HEAPS_MAX: Final = 2
"""Python's own threads take turns; librdkafka's and gRPC's allocate buffers, which are large."""


def bound_what_is_kept() -> bool:
    """Fix glibc's thresholds for this process, before it has threads. False: another C library,
    which has its own rules.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(name, value) == 1
        for name, value in (
            (_M_ARENA_MAX, HEAPS_MAX),
            (_M_MMAP_THRESHOLD, LARGE_BYTES),
            (_M_TRIM_THRESHOLD, SPARE_BYTES_MAX),
        )
    )
