"""A process that was flooded once is small again."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Final

import pytest

FLOOD: Final = """
import sys, threading
import psutil
from nocturne.runtime.memory import bound_what_is_kept

if sys.argv[1] == "bounded":
    assert bound_what_is_kept()

def flood(kept):
    bytearray(b"x" * 16_000_000)
    for _ in range(4):
        large = []
        for _ in range(100):
            large.append(bytearray(b"x" * 400_000))
            kept.append(bytearray(b"x" * 2_000))

kept = [[] for _ in range(4)]
before = psutil.Process().memory_info().rss
for one in kept:
    thread = threading.Thread(target=flood, args=(one,))
    thread.start()
    thread.join()
print(psutil.Process().memory_info().rss - before)
"""


def grown(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is asked here")
def test_what_a_flood_took_is_given_back_but_for_what_is_kept() -> None:
    bounded, usual = grown("bounded"), grown("usual")
    assert bounded < 12_000_000
    assert bounded < usual / 2, "the allocator gives everything back by itself: what is this for?"
