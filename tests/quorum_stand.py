"""A ledger's writing half with several validators on a test stand: each a process of its own with
its own home, key and port, on one broker or on others.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message
from tests.machines import free_ports, until
from tests.stand import Result, Running, Stand, author

from nocturne.client.operating import OperatorClient
from nocturne.client.validators import Role, Validator, ask_validator
from nocturne.consensus.store import Store
from nocturne.core import log_epochs, topics
from nocturne.core.blocks import Block, decode_block, link_of, link_to
from nocturne.core.certificates import CommitProof, check_commit_proof
from nocturne.core.commands import Opening
from nocturne.core.control import Control, sign_control
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key, Signer, prove_possession
from nocturne.core.log_epochs import LogOpening
from nocturne.core.validator_sets import Member, ValidatorSets
from nocturne.deploy import ceremony as founding
from nocturne.deploy.contributions import Terms
from nocturne.embedded import ceremony
from nocturne.embedded.home import Home
from nocturne.embedded.processes import grpc_serves, launched
from nocturne.runtime import journal, kafka
from nocturne.runtime.kafka import ProducedRecord
from nocturne.runtime.keys import create_key_file, load_signer
from nocturne.runtime.kinds import installed_kinds
from nocturne.runtime.lifecycle import EXIT_FAILED, EXIT_HALTED, HALTED_FILE

NOCTURNE = Path(sys.executable).with_name("nocturne")
SECONDS_MAX = 240.0
"""Of a wait: several validators share a small machine with everything else that is tested."""
ANSWER_SECONDS_MAX = 5.0
NONCE_BYTES = 32
SPARE = 1
"""Places for validators that genesis does not name."""
FACTS = Opening("facts", 1)
LEADERLESS = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
VOTING = (Role.LEADER, Role.FOLLOWER)


@dataclass
class QuorumStand(Stand):
    """One ledger of several validators."""

    validators: int = 4
    epoch_length: int = 1_000_000
    _standing: dict[int, Running] = field(default_factory=dict)
    _chain: list[Block] = field(default_factory=list)
    _later: dict[int, list[Block]] = field(default_factory=dict)
    _seen: int = 0
    _sent: int = 0
    _loads: int = 0
    _opened: set[tuple[int, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.home = Home(self.folder)
        self.folder.mkdir(mode=0o700, parents=True)
        terms = Terms(
            secrets.token_bytes(NONCE_BYTES),
            installed_kinds().entries,
            partitions=self.partitions,
            epoch_length=self.epoch_length,
        )
        founded = founding.found(
            founding.members_of(self.folder, self.validators),
            self.folder / founding.GENESIS_FILE,
            lambda: terms,
        )
        self.ledger_id = founded.ledger_id
        self.genesis_file = founded.genesis_file
        self.source = f"nocturne:sha256-{self.ledger_id.hex()}"
        self._running = []
        self._askers = {}
        self._known = {}
        names = [founding.validator_name(one) for one in range(self.validators + SPARE)]
        ports = free_ports(*names)
        self._addresses = [f"127.0.0.1:{ports[name]}" for name in names]
        self._sets = ValidatorSets.founding(self.epoch_length, self.genesis.validator_set)

    # Validators ---------------------------------------------------------------------------

    @property
    def everyone(self) -> range:
        """The ordinals of genesis's validators."""
        return range(self.validators)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of genesis's validators."""
        return tuple(self._addresses[: self.validators])

    def home_of(self, ordinal: int) -> Path:
        """The folder of a validator."""
        return self.home.data(founding.validator_name(ordinal))

    def key_file(self, ordinal: int) -> Path:
        """The file of a validator's key."""
        return self.folder / "keys" / founding.validator_name(ordinal) / "validator.key"

    def key(self, ordinal: int) -> Key:
        """A validator's key."""
        return load_signer(self.key_file(ordinal)).key

    def operator(self) -> Signer:
        """Who signs control records."""
        return load_signer(ceremony.operator_key(self.home))

    def admit(self, ordinal: int) -> Member:
        """A key and its journal, made together, in an empty home; the set does not know it yet."""
        self.key_file(ordinal).parent.mkdir(mode=0o700)
        self.home_of(ordinal).mkdir(mode=0o700)
        signer = create_key_file(self.key_file(ordinal))
        label = journal.owner_label(self.ledger_id, signer.key)
        journal.create(self.home_of(ordinal) / journal.FOLDER, label)
        return signer.key, prove_possession(signer)

    def begin(
        self, ordinal: int, *, before: str = "", inside: Sequence[str] = (), **environment: str
    ) -> Running:
        """Start a validator, without waiting for anything. `before` as in `Stand.start`; `inside`
        is a command that runs it.
        """
        name = founding.validator_name(ordinal)
        address = environment.get("NOCTURNE_LISTEN", self._addresses[ordinal])
        log = self.folder / f"{name}.log"
        code = (
            f"{before}\nimport sys\nfrom nocturne.consensus.__main__ import main\nsys.exit(main())"
        )
        argv = ["-c", code] if before else ["-m", "nocturne.consensus"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                launched([*inside, sys.executable, *argv]),
                env={
                    **os.environ,
                    "NOCTURNE_GENESIS_FILE": str(self.genesis_file),
                    "NOCTURNE_HOME_DIR": str(self.home_of(ordinal)),
                    "NOCTURNE_LISTEN": self._addresses[ordinal],
                    "NOCTURNE_PEERS": ",".join(self._addresses),
                    "NOCTURNE_KAFKA_BOOTSTRAP": self.bootstrap,
                    "NOCTURNE_KEY_FILE": str(self.key_file(ordinal)),
                    **self.environment,
                    **environment,
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        running = Running(process, log, address)
        self._running.append(running)
        self._standing[ordinal] = running
        return running

    def raise_all(self, ordinals: Sequence[int] | None = None, *, before: str = "") -> None:
        """Start validators, all when none are named, and wait until each votes."""
        named = self.everyone if ordinals is None else ordinals
        for ordinal in named:
            self.begin(ordinal, before=before)
        for ordinal in named:
            self.wait_voting(ordinal)

    def of(self, ordinal: int) -> Running:
        """The newest process of a validator."""
        return self._standing[ordinal]

    def report(self, ordinal: int) -> Validator | None:
        """What a validator says of itself; None while it says nothing."""
        try:
            return asyncio.run(ask_validator(self.of(ordinal).address, ANSWER_SECONDS_MAX))
        except Unavailable:
            return None

    def seen(self, inside: Sequence[str] = ()) -> dict[str, Any]:
        """What `nocturne validators --json` says to whoever names all addresses; `inside` is a
        command that runs it.
        """
        done = subprocess.run(
            [*inside, NOCTURNE, "validators", "--json"],
            env={
                **os.environ,
                "NOCTURNE_CONTROL_ADDRESS": ",".join(self.of(one).address for one in self.everyone),
                "NOCTURNE_LEDGER": str(self.genesis_file),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if found["quorum"]["reached"] else 3), done.stderr
        return found

    def wait_voting(self, ordinal: int) -> None:
        """Until a validator says that it votes. It has to ask the others first."""

        def votes() -> bool:
            self._begin_failed()
            said = self._asked_again(ordinal)
            return said is not None and said.role in VOTING

        until(votes, SECONDS_MAX, f"validator {ordinal} votes")

    def wait_height(self, ordinal: int, height: int) -> None:
        """Until a validator has executed and committed this height."""

        def has() -> bool:
            self._begin_failed()
            said = self._asked_again(ordinal)
            return said is not None and said.height >= height

        until(has, SECONDS_MAX, f"validator {ordinal} has block {height}")

    def _begin_failed(self) -> None:
        """Start each that failed again, as its supervisor would."""
        for ordinal, running in sorted(self._standing.items()):
            if running.process.poll() == EXIT_FAILED:
                self.begin(ordinal)

    def _asked_again(self, ordinal: int) -> Validator | None:
        """Its report. One that failed is started again, as its supervisor would: a broker that is
        slow is away. One that halted, or was killed, is not.
        """
        code = self.of(ordinal).process.poll()
        if code == EXIT_FAILED:
            self.begin(ordinal)
            return None
        assert code is None, (code, self.of(ordinal).said())
        return self.report(ordinal)

    def wait_halted(self, ordinal: int, words: str) -> str:
        """Until a validator has halted with a cause that has these words, as one supervisor would
        see it: a process that failed is started again, one that halted is not. The cause.
        """
        for _ in range(5):
            running = self.of(ordinal)
            code = running.process.wait(SECONDS_MAX)
            if code == EXIT_HALTED:
                break
            assert code == EXIT_FAILED, running.said()
            self.begin(ordinal)
        assert code == EXIT_HALTED, running.said()
        cause = (self.home_of(ordinal) / HALTED_FILE).read_text()
        assert words in cause, cause
        assert not grpc_serves(running.address)
        return cause.strip()

    def wait_standing(self, ordinal: int, words: str) -> None:
        """Until a validator says that its intake stands, for a cause that has these words. It may
        have to ask the others first, who may have failed too.
        """

        causes: list[str] = []

        def stands() -> bool:
            said = self._all_asked_again()[ordinal]
            if said is None or "its intake stands" not in said.role_cause:
                return False
            assert said.role in VOTING
            causes.append(said.role_cause)
            return True

        until(stands, SECONDS_MAX, f"validator {ordinal} stands")
        assert words in causes[0], causes[0]

    def wait_blocks(self, count: int) -> None:
        """Until the topic has so many blocks of the chain."""

        def has() -> bool:
            self._all_asked_again()
            return len(self.blocks()) >= count

        until(has, SECONDS_MAX, f"the topic has {count} blocks")

    def _all_asked_again(self) -> dict[int, Validator | None]:
        """Of all but those that were killed."""
        living = [
            one
            for one, running in sorted(self._standing.items())
            if running.process.poll() in (None, EXIT_FAILED)
        ]
        return {one: self._asked_again(one) for one in living}

    def open_log_epochs(self) -> int:
        """The operators let every partition that has certified records go on with the commands
        topic as the broker has it now, from its first offset on. The height of the last record.
        """
        uuid = kafka.topic_uuid(self.cluster, topics.COMMANDS)
        positions = {one.partition: one for block in self.blocks() for one in block.header.ranges}

        async def bring() -> int:
            height = 0
            async with OperatorClient(self.addresses, self.ledger_id) as client:
                for partition, newest in sorted(positions.items()):
                    now = await client.governance()
                    low, _ = kafka.watermarks(self.cluster, topics.COMMANDS, partition)
                    opening = LogOpening(partition, newest.log_epoch + 1, uuid, low)
                    control = Control(
                        self.ledger_id,
                        now.number + 1,
                        now.height + 1000,
                        log_epochs.ACTION,
                        log_epochs.opening_fields(opening),
                    )
                    signed = sign_control(control, (self.operator(),))
                    height = (await client.submit(signed)).height
            return height

        return asyncio.run(bring())

    # Load ---------------------------------------------------------------------------------

    def write(self, count: int, *, events: int = 1, who: int = 1, sessions: int = 8) -> None:
        """Append so many commands with so many events each, round over an author's sessions."""
        records = []
        for _ in range(count):
            self._sent += 1
            session = f"{who}/{self._sent % sessions}"
            opening = FACTS if (who, session) not in self._opened else None
            self._opened.add((who, session))
            records.append(
                self.command(author(who), session, self._sent, opening=opening, events=events)
            )
        self.submit(records)

    def certify(self, count: int, *, events: int = 1) -> None:
        """Append so many commands and wait until blocks have them."""
        self.write(count, events=events)
        self.wait_certified()

    @contextmanager
    def under_load(self, *, commands: int = 20, pause_s: float = 0.2) -> Iterator[None]:
        """Another author's commands all the while, from a thread of its own."""
        self._loads += 1
        name = f"load-{self._loads}"
        over = threading.Event()
        faults: list[BaseException] = []

        def write() -> None:
            number = 0
            try:
                while not over.is_set():
                    records: list[ProducedRecord] = []
                    for _ in range(commands):
                        number += 1
                        opening = FACTS if number <= 4 else None
                        session = f"{name}-{number % 4}"
                        records.append(self.command(author(9), session, number, opening=opening))
                    self.submit(records)
                    over.wait(pause_s)
            except BaseException as fault:
                faults.append(fault)

        thread = threading.Thread(target=write, name="load")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not faults, faults

    # Reading ------------------------------------------------------------------------------

    def read(self, topic: str, partition: int = 0, *, committed: bool = False) -> list[Message]:
        """As `Stand.read`; a broker that has just come back leads nothing for a moment."""
        return _patiently(lambda: Stand.read(self, topic, partition, committed=committed))

    def ends(self, topic: str) -> list[int]:
        """As `Stand.ends`, as patiently."""
        return _patiently(lambda: Stand.ends(self, topic))

    def blocks(self) -> list[Block]:
        """The chain as published, each block proved by its epoch's validators; two committed
        blocks at one height are an error.
        """
        messages = self.read(topics.BLOCKS)
        for message in messages[self._seen :]:
            try:
                block = decode_block(topics.unframe(message.value()))
            except Malformed:
                continue
            self._later.setdefault(block.header.height, []).append(block)
        self._seen = len(messages)
        for height in sorted(self._later):
            if height > len(self._chain) + 1:
                break
            for block in self._later.pop(height):
                self._follow(block)
        return list(self._chain)

    def _follow(self, block: Block) -> None:
        height = block.header.height
        if not self._is_proved(block):
            return
        if height <= len(self._chain):
            assert self._chain[height - 1].digest == block.digest, f"two blocks at {height}"
            return
        self._chain.append(block)
        self._sets = self._sets.after(height, block.control)

    def _is_proved(self, block: Block) -> bool:
        try:
            check_commit_proof(
                cast("CommitProof", block.proof),
                link_to(block.header, block.digest),
                self.ledger_id,
                self._sets.of_block(block.header),
                link_of,
            )
        except Malformed:
            return False
        return True

    @property
    def sets(self) -> ValidatorSets:
        """The validators of each epoch, as the published chain has decided them."""
        return self._sets

    def wait_certified(self) -> None:
        """Until blocks cover the whole commands topic as it is now."""
        ends = self.ends(topics.COMMANDS)
        until(
            lambda: all(a >= b for a, b in zip(self.certified_to(), ends, strict=True)),
            SECONDS_MAX,
            f"blocks cover the commands topic up to {ends}",
        )

    def forget(self) -> None:
        """What was read of the topics: they were made anew, or put back."""
        super().forget()
        self._seen = 0
        self._later.clear()

    # Disks --------------------------------------------------------------------------------

    def digests_of(self, ordinal: int) -> dict[int, Hash]:
        """The committed blocks that the journal of a validator has, which may run: of a copy."""
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            shutil.copytree(self.home_of(ordinal), home)
            store = Store(home, journal.owner_label(self.ledger_id, self.key(ordinal)))
            try:
                found = store.recover(self.genesis_file.read_bytes(), installed_kinds().registry)
            finally:
                store.close()
        return found.digests

    def check_no_fork(self, ordinals: Sequence[int] | None = None) -> None:
        """Whatever a validator has on its disk as committed is what was published, and its newest
        process answered whatever it was asked.
        """
        chain = self.blocks()
        for ordinal in self.everyone if ordinals is None else ordinals:
            assert "Unexpected [" not in self.of(ordinal).said(), self.of(ordinal).said()
            for height, digest in self.digests_of(ordinal).items():
                if height <= len(chain):
                    assert digest == chain[height - 1].digest, (ordinal, height)


def _patiently(ask: Callable[[], Result]) -> Result:
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            return ask()
        except KafkaException as fault:
            error = fault.args[0]
            if not (error.retriable() or error.code() in LEADERLESS):
                raise
            assert time.monotonic() < deadline, error
            time.sleep(0.1)
