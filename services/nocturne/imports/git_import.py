"""Bring a branch into a session: `git_log` reads, `git` maps, `into` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from nocturne.client.building import Author
from nocturne.core.commands import Opening
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.events import Event
from nocturne.core.identifiers import SessionId
from nocturne.imports import git, git_log
from nocturne.imports.drafts import Draft, payload_bytes_max
from nocturne.imports.git_log import Branch
from nocturne.imports.into import Imported, Place, Target, bring


class NotAnImport(NocturneError):  # noqa: N818
    """The session holds something else: says which event."""


async def bring_branch(
    target: Target,
    branch: Branch,
    session: SessionId,
    author: Author,
    environment: Mapping[str, str],
    progress: Callable[[int], None],
) -> Imported:
    """One event for every commit of `branch` that `session` lacks, parents first.

    `HistoryRewritten` when the session holds a commit that the branch does not have;
    `NotAnImport` when it holds anything but commits. Then nothing is written.
    """
    version = max(
        (kind.version for kind in target.genesis.kinds if kind.name == git.KIND), default=1
    )

    def drafts_after(imported: Sequence[str]) -> Iterator[Draft]:
        if imported:
            git.check_extends(imported, git_log.commit_hashes(branch, environment), session)
        if len(imported) == branch.commits:
            return iter(())
        return git.drafts(
            git_log.commits(branch, environment),
            frozenset(imported),
            payload_bytes_max(target.genesis.limits),
        )

    place = Place(session, Opening(git.KIND, version), author)
    return await bring(target, place, _commit_of, drafts_after, progress)


def _commit_of(event: Event) -> str:
    header = event.header
    try:
        return git.commit_in(header.event_type, event.payload.data)
    except Malformed as fault:
        raise NotAnImport(
            f"Event {header.sequence} of {header.session} is no imported commit ({fault}): give "
            "the history a session of its own with --session."
        ) from fault
