"""The demonstration from its first command to its findings, on a ledger that runs already."""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from nocturne.cli import authors
from nocturne.cli.connection import connect
from nocturne.cli.failures import ExitCode, as_failure
from nocturne.cli.importing import Written
from nocturne.client import Author, Client, Credentials
from nocturne.client.link import Link
from nocturne.core.exports import BlockLine, EventsLine, parse_line
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import LEDGER_SESSION, LedgerId, format_hash
from nocturne.core.keys import Ed25519Signer, Signer
from nocturne.embedded.demo import (
    attacks,
    auditing,
    business,
    proof,
    report,
    scenario,
    tampering,
    validators,
)
from nocturne.embedded.demo.findings import (
    Audit,
    Counts,
    Findings,
    History,
    Phase,
    Proof,
    Verdict,
)
from nocturne.embedded.demo.options import Options
from nocturne.embedded.demo.people import People
from nocturne.embedded.demo.purchase import DEPARTMENTS, RELEASED, STRANGER
from nocturne.embedded.demo.screen import Screen, latency_text, number
from nocturne.embedded.demo.stage import DEADLINE_SECONDS, Stage
from nocturne.embedded.demo.steps import Department
from nocturne.embedded.demo.validators import Quorum
from nocturne.embedded.home import Home
from nocturne.imports import git, git_import, git_log
from nocturne.wire.query.v1 import query_pb2_grpc

COMMITS_MAX: Final = 5_000
"""A longer history would be most of the demonstration."""
IMPORTER: Final = Department("engineering")


@dataclass(slots=True)
class Phases:
    """How long each part takes."""

    done: list[Phase] = field(default_factory=list)

    @contextmanager
    def timed(self, name: str) -> Iterator[Callable[[], float]]:
        """Time a block; the function says how long it has taken so far."""
        began = time.perf_counter()
        yield lambda: time.perf_counter() - began
        self.done.append(Phase(name, time.perf_counter() - began))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ledger runs. `kafka` (librdkafka's settings of a connection) and `dsn` may do
    anything: the insiders' attacks are made with them. Without a `home` of its own the departments'
    keys are nobody's to keep, and no git history is imported. `credentials` are for command and
    query, with the roles submit and audit.
    """

    command: str
    query: str
    genesis_bytes: bytes
    kafka: Mapping[str, str]
    dsn: str
    home: Home | None
    credentials: Credentials | None = None


async def show(screen: Screen, phases: Phases, place: Place, options: Options) -> Findings:
    """Business case, git history, attacks, audit."""
    genesis_bytes = place.genesis_bytes
    people = _people(place.home, ledger_id_of(genesis_bytes))
    plan = scenario.plan(options.seed, options.commands, people.authors)
    async with (
        Client(
            place.command,
            place.query,
            genesis=genesis_bytes,
            credentials=place.credentials,
            deadline_seconds=DEADLINE_SECONDS,
        ) as client,
        _linked(place) as query,
    ):
        stage = Stage(
            client,
            query,
            people,
            plan,
            genesis_bytes,
            place.kafka,
            place.dsn,
            random.Random(options.seed),
        )
        ran, counts = await _business(screen, phases, stage)
        chain = await _proof(stage)
        history = await _history(screen, phases, place.home, people.signers[IMPORTER])
        verdicts = await _attacks(screen, phases, stage, _quorum(place.home))
        audit = await _audit(screen, phases, stage)
    return Findings(
        format_hash(people.ledger_id),
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}",
        options.seed,
        tuple(phases.done),
        counts,
        ran.burst,
        ran.light,
        history,
        chain,
        tuple(verdicts),
        audit,
    )


@asynccontextmanager
async def _linked(place: Place) -> AsyncIterator[Link]:
    """Query past the SDK, which would verify an export before anybody sees it."""
    link = Link("query", place.query, query_pb2_grpc.QueryServiceStub, place.credentials)
    try:
        yield link
    finally:
        await link.close()


def write_report(findings: Findings, path: Path) -> None:
    """The findings as one page."""
    template = resources.files(__package__).joinpath("report.html").read_text("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.render(findings, template), "utf-8")


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the demonstration as Ctrl-C does."""
    raise KeyboardInterrupt


def failed(screen: Screen, error: Exception) -> ExitCode:
    """One sentence and the lines below it; the exit code."""
    first: Exception = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    failure = as_failure(first)
    screen.failed("failed", str(failure))
    for line in failure.details:
        screen.note("", line)
    return failure.code


def _people(home: Home | None, ledger_id: LedgerId) -> People:
    """A key for each department, kept in the home; the stranger's is nobody's to keep."""
    signers: dict[Department, Signer] = {}
    for name in DEPARTMENTS:
        if home is None or name == STRANGER:
            signers[name] = Ed25519Signer(os.urandom(32))
        else:
            authors.create(home, name)
            signers[name] = authors.load(home, name).signer
    return People(ledger_id, signers, os.urandom(32))


async def _business(screen: Screen, phases: Phases, stage: Stage) -> tuple[business.Ran, Counts]:
    with phases.timed("business case") as seconds:
        with screen.counting("business case") as count:
            ran = await business.run(stage.client, stage.plan, stage.people, count)
        await stage.readable(ran.height)
        counts = business.counts_of(stage.plan, await stage.client.status())
        screen.done(
            "business case",
            f"{number(counts.commands)} commands of {stage.plan.orders} orders became "
            f"{number(counts.events)} events and {number(counts.receipts)} receipts, each as "
            "planned",
            seconds(),
        )
    screen.note(
        "at full speed",
        f"{number(ran.burst.per_second)} commands/s, {ran.burst.level} and signatures checked",
    )
    screen.note(
        f"at {ran.light.commands_per_second:g} commands/s",
        "; ".join(map(latency_text, ran.light.samples)),
    )
    return ran, counts


async def _proof(stage: Stage) -> Proof:
    """The chain of the first payment that was released."""
    step = next(
        step
        for step in stage.plan.steps
        if step.refusal is None and step.facts[0].event_type == RELEASED
    )
    block = b""
    for data in tampering.lines_of(await stage.export(step.session)):
        line = parse_line(data)
        if isinstance(line, BlockLine):
            block = data
        if isinstance(line, EventsLine) and line.command.events[0].event_type == RELEASED:
            return proof.chain_of(block, data, 0, step.author)
    raise business.NotAsPlanned(f"the export of {step.session} has no {RELEASED}")


async def _history(
    screen: Screen, phases: Phases, home: Home | None, author: Signer
) -> History | None:
    if home is None:
        screen.note("git history", "left out: there is no folder of a project here")
        return None
    folder = Path.cwd()
    try:
        branch = git_log.open_branch(folder, None, os.environ)
    except git_log.GitError as none:
        screen.note("git history", f"left out: {none}")
        return None
    if branch.commits > COMMITS_MAX:
        screen.note("git history", f"left out: {branch.commits} commits are too many for a show")
        return None
    session = git.session_of(branch.repository, branch.name)
    with phases.timed("git history") as seconds:
        async with connect(home, DEADLINE_SECONDS) as ledger:
            done = await git_import.bring_branch(
                Written(ledger),
                branch,
                session,
                Author.of(author),
                os.environ,
                lambda _: None,
            )
        screen.done(
            "git history", f"{done.imported} commits of this folder in {session}", seconds()
        )
        return History(session, done.imported, seconds())


def _quorum(home: Home | None) -> Quorum | None:
    """The validators, if they are processes of this machine and one of them may fail."""
    if home is None:
        return None
    found = Quorum(home)
    return found if len(found.members) >= validators.NEEDED else None


async def _attacks(
    screen: Screen, phases: Phases, stage: Stage, quorum: Quorum | None
) -> list[Verdict]:
    screen.title("The ledger attacks itself")
    verdicts: list[Verdict] = []
    with phases.timed("attacks"):
        async with aclosing(attacks.run(stage, quorum)) as found:
            async for verdict in found:
                screen.verdict(verdict)
                verdicts.append(verdict)
    count = attacks.COUNT + (0 if quorum is None else validators.COUNT)
    if len(verdicts) != count:
        raise business.NotAsPlanned(f"expected {count} attacks, made {len(verdicts)}")
    if quorum is None:
        screen.note("validators", "not attacked: they are not four processes of this machine")
    return verdicts


async def _audit(screen: Screen, phases: Phases, stage: Stage) -> Audit:
    screen.title("Everything verified, offline")
    with phases.timed("audit") as seconds:
        status = await stage.client.status()
        sessions = {one.session async for one in stage.client.sessions()} | {LEDGER_SESSION}
        with screen.counting("audit") as count:
            audit = await auditing.audit(
                sorted(sessions), stage.people.ledger_id, stage.export, count
            )
        audit = auditing.against(audit, status.events, status.receipts)
        what = (
            f"{audit.verified} of {audit.exports} exports, {number(audit.events)} events, "
            f"{number(audit.receipts)} receipts, {audit.bytes / 1e6:.1f} MB"
        )
        if audit.failures:
            screen.failed("session exports", what)
        else:
            screen.done("session exports", what, seconds())
    for failure in audit.failures:
        screen.failed("", failure)
    return audit
