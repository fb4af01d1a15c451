"""The errors of Nocturne, by what the one who meets them has to do.

A refused command is none of these: it is a decision, and becomes a signed receipt. The names say
what is to be done, so they go without the suffix Error (N818).
"""

from __future__ import annotations


class NocturneError(Exception):
    """Any error that Nocturne itself raises; its message says what, expected and got."""


class PeerFault(NocturneError):  # noqa: N818
    """A peer's bytes are wrong: count it, drop it, go on."""


class Malformed(PeerFault):
    """Bytes that are not the one encoding of anything: says what, expected and got."""


class Unavailable(NocturneError):  # noqa: N818
    """Broker, database or store away: retry with a bound and jitter, then give up loudly."""


class Halt(NocturneError):  # noqa: N818
    """Our own data contradicts itself: stop, stay stopped across restarts, tell a person."""
