"""How a job of a deployment runs: one step of its own, one sentence at its end, an exit code.

0 done, 1 refused or failed (the sentence says why; trying again is safe), 2 settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from nocturne.core.errors import NocturneError
from nocturne.runtime.lifecycle import EXIT_FAILED, EXIT_OK, EXIT_SETTINGS
from nocturne.runtime.settings import PREFIX

SHOWN_CHARACTERS_MAX: Final = 80


def run(name: str, steps: Mapping[str, Callable[[], str]], arguments: Sequence[str]) -> int:
    """Run the step that is named, or the first one when none is, and return the exit code."""
    asked = arguments[0] if arguments else next(iter(steps))
    step = steps.get(asked)
    if step is None or len(arguments) > 1:
        _say(name, f"expected one of {', '.join(steps)}, got {asked[:SHOWN_CHARACTERS_MAX]!r}")
        return EXIT_SETTINGS
    try:
        print(f"{name}: {step()}", flush=True)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_input=False):
            variable = PREFIX + "_".join(str(part) for part in error["loc"]).upper()
            _say(name, f"{variable}: {error['msg']}")
        return EXIT_SETTINGS
    except (NocturneError, OSError) as fault:
        _say(name, str(fault))
        return EXIT_FAILED
    return EXIT_OK


def _say(name: str, sentence: str) -> None:
    print(f"{name}: {sentence}", file=sys.stderr, flush=True)
