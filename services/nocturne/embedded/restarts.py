"""When to start a dead process again, and when to stop trying. Pure: the caller brings the time."""

from collections.abc import Sequence
from dataclasses import dataclass

GIVE_UP_DEATHS = 20
GIVE_UP_SECONDS = 120.0
# Before it was ever healthy, a process that dies again and again will not come up by itself.
GIVE_UP_DEATHS_UNBORN = 5
RECENT_SECONDS = 30.0
DELAY_FIRST_SECONDS = 0.1
DELAY_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class RestartAfter:
    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def after_death(
    deaths: Sequence[float], was_healthy: bool, final: str | None = None
) -> RestartAfter | GiveUp:
    """Decide after the last of `deaths` (times in seconds, ascending).

    The first restart is immediate; then delays double from 0.1 s to 5 s while deaths are close.
    `final` is what the process itself said of why another start would change nothing.
    """
    if final is not None:
        return GiveUp(final)
    now = deaths[-1]
    if not was_healthy and len(deaths) >= GIVE_UP_DEATHS_UNBORN:
        return GiveUp(f"it ended {len(deaths)} times before it was ready")
    if sum(now - death < GIVE_UP_SECONDS for death in deaths) >= GIVE_UP_DEATHS:
        return GiveUp(f"it ended {GIVE_UP_DEATHS} times within {GIVE_UP_SECONDS:.0f} s")
    recent = sum(now - death < RECENT_SECONDS for death in deaths)
    if recent == 1:
        return RestartAfter(0.0)
    return RestartAfter(min(DELAY_FIRST_SECONDS * 2 ** (recent - 2), DELAY_SECONDS_MAX))
