"""A long session and many sessions work; memory is flat in events and linear in sessions.

`NOCTURNE_SCALE` is the part of 30 000 events and 20 000 sessions that is written: a tenth, unless
it says otherwise; `make scale` writes all. Latencies are printed, not judged.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bench import scale

PART = float(os.environ.get("NOCTURNE_SCALE", "0.1"))
EVENTS = int(30_000 * PART)
SESSIONS = int(20_000 * PART)
SLACK_BYTES = 12 * 1024 * 1024
"""What a process's heap moves by itself between two looks."""
KEPT_BYTES_MAX = 64 * 1024 * 1024
"""What a process may keep of the newest events, however many there were: the command service
remembers 65 536 outcomes, the query service the states that were asked for."""
EVENT_BYTES_MAX = 100
"""Of memory for another event: nothing keeps events, and one on the wire has 700 bytes."""
SESSION_BYTES_MAX = 8 * 1024
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(200 + int(1000 * PART)),
]


def test_memory_is_flat_in_events_and_linear_in_sessions(tmp_path: Path) -> None:
    found = scale.measure(tmp_path / "home", EVENTS, SESSIONS, light_seconds=2.0, validators=1)
    print(json.dumps(scale.metrics(found, EVENTS, SESSIONS), indent=1))
    for name, grown in found.grown("small", "full").items():
        assert grown < SLACK_BYTES + KEPT_BYTES_MAX, f"{name}: {grown} until its bounds are full"
    for name, grown in found.grown("full", "again").items():
        assert grown < SLACK_BYTES + EVENTS * EVENT_BYTES_MAX, (
            f"{name}: {grown} for {EVENTS} events"
        )
    halves = found.grown("again", "half"), found.grown("half", "sessions")
    for name in halves[0]:
        first, second = (half[name] for half in halves)
        print(f"{name}: {(first + second) / SESSIONS:.0f} bytes per session")
        assert second < SLACK_BYTES + SESSIONS // 2 * SESSION_BYTES_MAX
        assert second < SLACK_BYTES + 2 * max(first, 0), f"{name}: {first}, then {second} bytes"
