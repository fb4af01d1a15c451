"""What runs in a world: production, or production with one bug planted (tests/simulation/planted).

A bug of the machine is another `machine` class, one of the encoders another `certificates` module,
one of the host a `HostBug`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import ModuleType
from typing import Final

from nocturne.consensus.quorum.machine import Machine
from nocturne.core import certificates, certified_snapshot
from nocturne.core.log_epochs import LogOpening, check_opening
from nocturne.core.state_leaf import LogPosition

CheckOpening = Callable[[LogPosition | None, LogOpening], None]
"""`core.log_epochs.check_opening`, or one with a bug."""


class HostBug(Enum):
    """What a careless host does."""

    SENDS_BEFORE_SYNC = auto()
    COMMITS_BEFORE_SYNC = auto()
    FORGETS_VOTES = auto()
    IGNORES_FULL_DISK = auto()
    TAKES_ANY_RANGE_START = auto()
    TAKES_ANY_COUNT = auto()
    TAKES_ANY_ROOT = auto()
    TRUSTS_A_CHANGED_LOG = auto()
    MIXES_LOG_EPOCHS = auto()
    HALTS_OVER_OTHER_RECORDS = auto()
    NOTARIZES_WHAT_OTHERS_HAVE = auto()


@dataclass(frozen=True, slots=True)
class Variant:
    """The code under test."""

    machine: type[Machine] = Machine
    certificates: ModuleType = certificates
    host: frozenset[HostBug] = frozenset()
    check_opening: CheckOpening = check_opening
    snapshots: ModuleType = certified_snapshot
    """`core.certified_snapshot`."""


PRODUCTION: Final = Variant()
