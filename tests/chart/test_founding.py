"""The founding ceremony on Kubernetes, against an API server with the chart's own rights."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.chart.api_server import ApiServer, Refusal, serving
from tests.chart.cases import rendered
from tests.helm import Object

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.genesis import decode_genesis, ledger_id_of
from nocturne.core.identifiers import format_hash
from nocturne.core.keys import Ed25519Signer, prove_possession
from nocturne.deploy import ceremony, kubernetes
from nocturne.deploy.config_maps import ConfigMaps, Conflict, Forbidden
from nocturne.deploy.contributions import (
    Contribution,
    FoundingFault,
    Role,
    decode_contribution,
    encode_contribution,
)
from nocturne.runtime import journal
from nocturne.runtime.home import CannotStart, held_alone
from nocturne.runtime.keys import load_signer

RELEASE = "ledger-nocturne"
NAMESPACE = "audit"
WAIT_SECONDS = 200
"""Of processes that run at once; a second on a machine that has nothing else to do."""
PROCESS_SECONDS_MAX = 300


class Clock:
    """Stands for the module `time` where the ceremony waits: no test does."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Cluster:
    """A namespace with the chart's objects, and a volume for each of its pods."""

    def __init__(self, api: ApiServer, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.api = api
        self.root = root
        self._patch = patch
        self.clock = Clock()
        patch.setattr(kubernetes, "time", self.clock)

    def volume(self, pod: str) -> Path:
        return self.root / pod

    def token(self, account: str) -> Path:
        """What Kubernetes projects into a pod of the account."""
        folder = self.root / "api" / account
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / "tls" / "ca.crt", folder / "ca.crt")
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "token").write_text(self.api.token_for(f"{RELEASE}-{account}"))
        return folder

    def settings(self, account: str, **more: object) -> dict[str, str]:
        found = {
            "RELEASE": RELEASE,
            "KUBERNETES_DIR": self.token(account),
            "WAIT_SECONDS": 2,
            **more,
        }
        return {f"NOCTURNE_{name}": str(value) for name, value in found.items()}

    def member(self, account: str, volume: str | None = None, ordinal: int = 0) -> dict[str, str]:
        home = self.volume(volume or account)
        home.mkdir(exist_ok=True)
        role, key = {
            "consensus": ("validator", "validator.key"),
            "signing": ("authority", "authority.key"),
        }[account]
        return self.settings(
            account,
            ROLE=role,
            ORDINAL=ordinal,
            HOME_DIR=home,
            KEY_FILE=home / "keys" / key,
            GENESIS_FILE=home / "genesis.avro",
        )

    def job(self, **more: object) -> dict[str, str]:
        key = self.volume("operator") / "keys" / "operator.key"
        return self.settings("genesis", **{"VALIDATORS": 1, "KEY_FILE": key, **more})

    def run(self, step: Callable[[], str], settings: dict[str, str]) -> str:
        with self._patch.context() as patch:
            for name in [one for one in os.environ if one.startswith("NOCTURNE_")]:
                patch.delenv(name)
            for name, value in settings.items():
                patch.setenv(name, value)
            return step()

    def join(self, account: str, volume: str | None = None, ordinal: int = 0) -> str:
        return self.run(kubernetes.join, self.member(account, volume, ordinal))

    def compose(self, **more: object) -> str:
        return self.run(kubernetes.compose_genesis, self.job(**more))

    def compose_with(self, operators: Path, **more: object) -> str:
        """The job, when operators have contributed."""
        settings = self.job(CONTRIBUTIONS_DIR=operators, **more)
        del settings["NOCTURNE_KEY_FILE"]
        return self.run(kubernetes.compose_genesis, settings)

    def found(self) -> str:
        """The whole ceremony; each pod starts again when it has waited in vain."""
        for account in ("consensus", "signing"):
            with contextlib.suppress(Unavailable):
                self.join(account)
        said = self.compose()
        self.join("consensus")
        self.join("signing")
        return said

    def ask_directly(
        self, client: ConfigMaps, name: str, method: str, body: bytes | None
    ) -> tuple[int, bytes]:
        """In the place of `ConfigMaps._ask`: the same question, asked within the process."""
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}"
        token = (client.folder / "token").read_text()
        code, found = self.api.answer(
            method, path, f"Bearer {token}", "application/merge-patch+json", body or b""
        )
        return code, json.dumps(found).encode()

    @property
    def genesis(self) -> bytes:
        data = self.api.binary(f"{RELEASE}-genesis", "genesis.avro")
        assert data is not None
        return data

    def check_whole(self) -> None:
        """The ledger is founded: everybody has the one genesis and the key that it names."""
        genesis = decode_genesis(self.genesis)
        for pod, key, expected in (
            ("consensus", "validator.key", genesis.validator_set.keys[0]),
            ("signing", "authority.key", genesis.authority),
        ):
            home = self.volume(pod)
            assert (home / "genesis.avro").read_bytes() == self.genesis
            assert load_signer(home / "keys" / key).key == expected
            assert not list(home.rglob(f"*{ceremony.MARK}"))
        assert journal.exists(self.volume("consensus") / journal.FOLDER)
        operator = load_signer(self.volume("operator") / "keys" / "operator.key")
        assert genesis.operators == (operator.key,)
        assert self.api.config_maps[f"{RELEASE}-genesis"]["immutable"] is True
        for who in ("validator-0", "authority-0"):
            assert not self.api.config_maps[f"{RELEASE}-contribution-{who}"].get("data"), who


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """For one validator: what a member does, each does."""
    with cluster_of(rendered("one validator"), tmp_path, monkeypatch) as made:
        yield made


@contextlib.contextmanager
def cluster_of(
    objects: Sequence[Object], folder: Path, patch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A namespace with these objects."""
    api = ApiServer(NAMESPACE, list(objects))
    with serving(api, folder / "tls") as address:
        patch.setenv("KUBERNETES_SERVICE_HOST", address.host)
        patch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
        yield Cluster(api, folder, patch)


def test_four_validators_found_a_ledger_in_any_order_each_with_its_own_key(
    trial: list[Object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = [f"consensus-{ordinal}" for ordinal in range(4)]
    with cluster_of(trial, tmp_path, monkeypatch) as cluster:

        def joined(ordinal: int) -> str:
            return cluster.join("consensus", volumes[ordinal], ordinal)

        for ordinal in (2, 0):
            with pytest.raises(Unavailable):
                joined(ordinal)
        with pytest.raises(Unavailable):
            cluster.join("signing")
        with pytest.raises(Unavailable, match="contribution-validator-1"):
            cluster.compose(VALIDATORS=4)
        for ordinal in (3, 1):
            with pytest.raises(Unavailable):
                joined(ordinal)
        cluster.compose(VALIDATORS=4)
        cluster.join("signing")
        genesis = decode_genesis(cluster.genesis)
        assert genesis.validator_set.quorum == 3
        for ordinal, volume in enumerate(volumes):
            assert "is a member of sha256-" in joined(ordinal)
            home = cluster.volume(volume)
            signer = load_signer(home / "keys" / "validator.key")
            assert signer.key == genesis.validator_set.keys[ordinal]
            assert journal.exists(home / journal.FOLDER)
        with pytest.raises(FoundingFault, match="validators 4, the values say 7"):
            cluster.compose(VALIDATORS=7)
        with pytest.raises(FoundingFault):
            cluster.join("consensus", volumes[1], 2)


def test_a_validator_more_makes_its_key_and_journal_once_there_is_a_ledger_and_says_its_key(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    def admitted() -> Contribution:
        settings = {**cluster.member("consensus", "more", 1), "NOCTURNE_VALIDATORS": "1"}
        assert "once operators admit it" in cluster.run(kubernetes.join, settings)
        return decode_contribution(capsys.readouterr().out.encode())

    with pytest.raises(Unavailable, match=r"genesis\.avro"):
        admitted()
    home = cluster.volume("more")
    assert not (home / "keys" / "validator.key").exists(), "its journal will name the ledger"
    cluster.found()
    capsys.readouterr()
    made = admitted()
    assert (made.role, made.ordinal) == (Role.VALIDATOR, 1)
    assert made.key == load_signer(home / "keys" / "validator.key").key
    label = journal.owner_label(ledger_id_of(cluster.genesis), made.key)
    journal.open_journal(home / journal.FOLDER, label).close()
    assert admitted() == made, "it says so at each start"
    # A founder's place is never taken that way.
    settings = {**cluster.member("consensus", "lost", 0), "NOCTURNE_VALIDATORS": "1"}
    with pytest.raises(FoundingFault, match="never taken in its place"):
        cluster.run(kubernetes.join, settings)


def test_a_founding_of_more_validators_than_a_certificate_lists_is_refused(
    cluster: Cluster,
) -> None:
    with pytest.raises(FoundingFault, match="with 1 to 31 validators, got 32"):
        cluster.compose(VALIDATORS=32)


def test_members_and_job_found_a_ledger_and_no_key_leaves_its_volume(cluster: Cluster) -> None:
    said = cluster.found()
    cluster.check_whole()
    assert said.startswith("the ledger is sha256-")
    keys = [*cluster.root.glob("*/keys/*.key")]
    assert len(keys) == 3
    published = repr(cluster.api.config_maps)
    for path in keys:
        seed = json.loads(path.read_text())["seed"]
        assert len(seed) == 64
        assert seed not in published


def test_a_founded_member_starts_without_the_api_server(cluster: Cluster) -> None:
    cluster.found()
    asked = len(cluster.api.log)
    assert "is a member of sha256-" in cluster.join("consensus")
    assert "is a member of sha256-" in cluster.join("signing")
    assert len(cluster.api.log) == asked


def test_the_ceremony_is_the_same_when_everybody_starts_it_again(cluster: Cluster) -> None:
    first = cluster.found()
    data = cluster.genesis
    assert cluster.found() == first
    assert cluster.genesis == data


@pytest.mark.timeout(400)
def test_processes_that_start_in_any_order_found_one_ledger(cluster: Cluster) -> None:
    dice = random.Random(seed := random.randrange(2**32))
    print("seed", seed)
    # Two of everything: a job and a pod that Kubernetes has given up are sometimes still there.
    started = [
        ("join", cluster.member("consensus")),
        ("join", cluster.member("signing")),
        ("compose", cluster.job()),
        ("compose", cluster.job(KEY_FILE=cluster.root / "operator-2" / "key")),
    ]
    dice.shuffle(started)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "nocturne.deploy.kubernetes", step],
            env={**os.environ, **settings, "NOCTURNE_WAIT_SECONDS": str(WAIT_SECONDS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for step, settings in started
    ]
    try:
        said = [one.communicate(timeout=PROCESS_SECONDS_MAX)[0] for one in running]
    finally:
        for one in running:
            one.kill()
    codes = {step: [] for step, _ in started}  # type: dict[str, list[int]]
    for (step, _), one in zip(started, running, strict=True):
        codes[step].append(one.returncode)
    assert codes["join"] == [0, 0], said
    # The job that was too late either saw the genesis before it had made its own operator's key, or
    # sees that the genesis has not that one.
    assert 0 in codes["compose"], said
    ledger = f"the ledger is {format_hash(ledger_id_of(cluster.genesis))}"
    for (step, _), one, text in zip(started, running, said, strict=True):
        if step == "compose":
            expected = ledger if one.returncode == 0 else "it was made of other contributions"
            assert expected in text
    genesis = decode_genesis(cluster.genesis)
    for pod, key in (("consensus", genesis.validator_set.keys[0]), ("signing", genesis.authority)):
        found = next(cluster.volume(pod).glob("keys/*.key"))
        assert load_signer(found).key == key


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.timeout(400)  # Two hundred ceremonies, on a machine that has other things to do.
def test_a_kill_at_any_step_leaves_nothing_that_the_next_start_does_not_finish(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every durable step and both sides of every request are such a place."""
    left: list[int] = []

    def step() -> None:
        if left:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

    def counted(owner: Any, name: str, after: bool = False) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            step()
            result = real(*arguments, **named)
            if after:
                step()
            return result

        monkeypatch.setattr(owner, name, wrapped)

    for name in ("fsync", "open"):
        counted(os, name)
    for name in ("replace", "unlink", "touch", "mkdir"):
        counted(Path, name)

    # Hundreds of ceremonies: without the network between.
    def ask(*arguments: Any) -> tuple[int, bytes]:
        return cluster.ask_directly(*arguments)

    monkeypatch.setattr(ConfigMaps, "_ask", ask)
    counted(ConfigMaps, "_ask", after=True)
    for kill_at in itertools.count(1):
        for volume in ("consensus", "signing", "operator"):
            shutil.rmtree(cluster.volume(volume), ignore_errors=True)
        cluster.api.__post_init__()
        left[:] = [kill_at]
        try:
            cluster.found()
        except Killed:
            left.clear()
            cluster.found()
            cluster.check_whole()
            continue
        assert left[0] > 0, "the count ran out without a kill"
        break
    assert kill_at > 40, f"only {kill_at} places were tried"


def test_a_member_whose_volume_was_lost_never_gets_a_new_key(cluster: Cluster) -> None:
    cluster.found()
    for account in ("consensus", "signing"):
        shutil.rmtree(cluster.volume(account))
        with pytest.raises(FoundingFault, match="this volume is empty: the volume that was lost"):
            cluster.join(account)
        assert not list(cluster.volume(account).glob("keys/*.key*")), "no key was made"
    assert "ledger is sha256-" in cluster.compose()


def test_a_volume_that_was_lost_before_the_genesis_is_refused_as_another_key(
    cluster: Cluster,
) -> None:
    with pytest.raises(NocturneError, match="in vain"):
        cluster.join("consensus")
    with pytest.raises(NocturneError, match="in vain"):
        cluster.join("signing")

    kept = cluster.api.config_maps[f"{RELEASE}-contribution-validator-0"]["data"]
    shutil.rmtree(cluster.volume("consensus"))
    with pytest.raises(NocturneError, match="in vain"):
        cluster.join("consensus")
    cluster.api.config_maps[f"{RELEASE}-contribution-validator-0"]["data"] = kept
    cluster.compose()
    with pytest.raises(FoundingFault, match="this volume has another key: the volume that"):
        cluster.join("consensus")


def test_a_journal_that_is_gone_is_never_made_anew(cluster: Cluster) -> None:
    cluster.found()
    shutil.rmtree(cluster.volume("consensus") / journal.FOLDER)
    with pytest.raises(FoundingFault, match="its key never votes without it"):
        cluster.join("consensus")


def test_a_genesis_that_is_gone_everywhere_is_asked_back_from_a_backup(cluster: Cluster) -> None:
    cluster.found()
    (cluster.volume("consensus") / "genesis.avro").unlink()
    assert "is a member" in cluster.join("consensus"), "the ConfigMap still has it"
    (cluster.volume("consensus") / "genesis.avro").unlink()
    cluster.api.__post_init__()
    with pytest.raises(FoundingFault, match=r"put genesis\.avro back in one of them"):
        cluster.join("consensus")


def test_two_pods_on_one_volume_do_not_both_join(cluster: Cluster) -> None:
    with (
        held_alone(cluster.volume("consensus") / "keys"),
        pytest.raises(CannotStart, match="in use by another process"),
    ):
        cluster.join("consensus")
    assert not list(cluster.volume("consensus").glob("keys/*.key"))


def test_the_values_of_a_founded_ledger_cannot_say_something_else(cluster: Cluster) -> None:
    cluster.found()
    with pytest.raises(FoundingFault, match="has partitions 4, the values say 8"):
        cluster.compose(PARTITIONS=8)


def _operators(folder: Path, *seeds: int) -> Path:
    """The contributions of operators, as the chart mounts them."""
    folder.mkdir()
    for ordinal, seed in enumerate(seeds):
        text = _contribution(seed, Role.OPERATOR, ordinal)
        (folder / f"operator-{ordinal}.json").write_text(text)
    return folder


def _found_with(cluster: Cluster, operators: Path) -> None:
    for account in ("consensus", "signing"):
        with pytest.raises(NocturneError, match="in vain"):
            cluster.join(account)
    cluster.compose_with(operators, OPERATOR_THRESHOLD=2)
    for account in ("consensus", "signing"):
        cluster.join(account)


def test_operators_who_contributed_are_the_ledgers(cluster: Cluster, tmp_path: Path) -> None:
    _found_with(cluster, _operators(tmp_path / "operators", 1, 2, 3))
    genesis = decode_genesis(cluster.genesis)
    expected = [Ed25519Signer(bytes([seed] * 32)).key for seed in (1, 2, 3)]
    assert genesis.operators == tuple(expected)
    assert genesis.operator_threshold == 2


def test_the_values_cannot_name_other_operators_than_the_ledgers(
    cluster: Cluster, tmp_path: Path
) -> None:
    three = _operators(tmp_path / "three", 1, 2, 3)
    _found_with(cluster, three)
    assert "the ledger is" in cluster.compose_with(three, OPERATOR_THRESHOLD=2)
    other, two = _operators(tmp_path / "other", 9, 2, 3), _operators(tmp_path / "two", 1, 2)
    with pytest.raises(FoundingFault, match="another key of operator 0"):
        cluster.compose_with(other, OPERATOR_THRESHOLD=2)
    with pytest.raises(FoundingFault, match="with 3 operators, the values say 2"):
        cluster.compose_with(two, OPERATOR_THRESHOLD=2)
    with pytest.raises(FoundingFault, match="operatorThreshold 2, the values say 1"):
        cluster.compose_with(three)
    with pytest.raises(FoundingFault, match="with 3 operators, the values say 1"):
        cluster.compose(OPERATOR_THRESHOLD=2)


def test_a_genesis_config_map_that_was_lost_is_never_given_a_second_genesis(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Helm makes it anew, empty, and a changed image starts the job once more."""
    operators = _operators(tmp_path / "operators", 1, 2)
    _found_with(cluster, operators)
    name = f"{RELEASE}-genesis"
    before = cluster.genesis
    lost = cluster.api.config_maps[name]
    cluster.api.config_maps[name] = ApiServer(NAMESPACE, cluster.api.rendered).config_maps[name]
    with pytest.raises(Unavailable, match="has no contribution yet"):
        cluster.compose_with(operators, OPERATOR_THRESHOLD=2)
    for account in ("consensus", "signing"):
        assert "is a member" in cluster.join(account)
        assert (cluster.volume(account) / "genesis.avro").read_bytes() == before
    assert cluster.api.binary(name, "genesis.avro") is None
    cluster.api.config_maps[name] = lost
    assert "the ledger is" in cluster.compose_with(operators, OPERATOR_THRESHOLD=2)


def test_a_member_that_took_a_genesis_takes_no_other_though_its_mark_is_still_there(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Killed between the two; then the ConfigMap is lost and filled by somebody."""
    _found_with(cluster, _operators(tmp_path / "operators", 1, 2))
    home = cluster.volume("signing")
    before = (home / "genesis.avro").read_bytes()
    (home / "keys" / f"authority.key{ceremony.MARK}").touch()
    name = f"{RELEASE}-genesis"
    cluster.api.config_maps[name] = ApiServer(NAMESPACE, cluster.api.rendered).config_maps[name]
    assert "is a member" in cluster.join("signing")
    assert (home / "genesis.avro").read_bytes() == before
    assert not list(home.rglob(f"*{ceremony.MARK}"))


def test_two_jobs_on_one_claim_do_not_both_make_the_operators_key(cluster: Cluster) -> None:
    keys = cluster.volume("operator") / "keys"
    with held_alone(keys), pytest.raises(CannotStart, match="in use by another process"):
        cluster.compose()
    assert not list(keys.glob("*.key"))


def test_a_job_whose_contributions_are_taken_back_sees_the_genesis_of_the_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    sleep = cluster.clock.sleep

    def founded_meanwhile(seconds: float) -> None:
        sleep(seconds)
        if not started:
            started.append("")
            started[0] = cluster.found()

    monkeypatch.setattr(cluster.clock, "sleep", founded_meanwhile)
    late = cluster.root / "operator-2" / "keys" / "operator.key"
    assert cluster.compose(KEY_FILE=late, WAIT_SECONDS=900) == started[0]
    assert not late.exists()
    cluster.check_whole()


def _contribution(seed: int, role: Role, ordinal: int = 0) -> str:
    signer = Ed25519Signer(bytes([seed] * 32))
    one = Contribution(role, ordinal, signer.key, prove_possession(signer))
    return encode_contribution(one).decode()


@pytest.mark.parametrize(
    "validator, authority, sentence",
    [
        (_contribution(1, Role.AUTHORITY), _contribution(2, Role.AUTHORITY), "of authority 0"),
        (_contribution(1, Role.VALIDATOR, 1), _contribution(2, Role.AUTHORITY), "of validator 1"),
        (_contribution(1, Role.VALIDATOR), _contribution(1, Role.AUTHORITY), "the same key"),
        ("nothing", _contribution(2, Role.AUTHORITY), "ledger-nocturne-contribution-validator-0"),
        (
            _contribution(1, Role.VALIDATOR).replace('"key":["ed25519-', '"key":["ed25519-0'),
            _contribution(2, Role.AUTHORITY),
            "ledger-nocturne-contribution-validator-0",
        ),
    ],
    ids=["another's role", "another's ordinal", "one key twice", "no contribution", "another key"],
)
def test_what_is_no_members_own_contribution_founds_nothing(
    cluster: Cluster, validator: str, authority: str, sentence: str
) -> None:
    maps = cluster.api.config_maps
    maps[f"{RELEASE}-contribution-validator-0"]["data"] = {"contribution.json": validator}
    maps[f"{RELEASE}-contribution-authority-0"]["data"] = {"contribution.json": authority}
    with pytest.raises(FoundingFault, match=sentence):
        cluster.compose()
    assert cluster.api.binary(f"{RELEASE}-genesis", "genesis.avro") is None


ACCOUNTS = (
    "command",
    "consensus",
    "database",
    "genesis",
    "projection",
    "query",
    "signing",
    "topics",
)
MAY = {
    ("consensus", "contribution-validator-0"): {"get", "patch"},
    ("consensus", "genesis"): {"get"},
    ("signing", "contribution-authority-0"): {"get", "patch"},
    ("signing", "genesis"): {"get"},
    ("genesis", "contribution-validator-0"): {"get"},
    ("genesis", "contribution-authority-0"): {"get"},
    ("genesis", "genesis"): {"get", "patch"},
}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_each_service_account_may_do_its_part_of_the_ceremony_and_nothing_else(
    cluster: Cluster, account: str
) -> None:
    client = ConfigMaps(
        os.environ["KUBERNETES_SERVICE_HOST"],
        int(os.environ["KUBERNETES_SERVICE_PORT"]),
        cluster.token(account),
    )
    anyone = ConfigMaps(client.host, client.port, cluster.token("genesis"))
    for name in cluster.api.config_maps:
        short = name.removeprefix(f"{RELEASE}-")
        allowed = MAY.get((account, short), set())
        known = anyone.get(name)
        for verb, ask in (
            ("get", lambda known=known: client.get(known.name)),
            ("patch", lambda known=known: client.add(known, texts={"probe": "x"})),
        ):
            if verb in allowed:
                ask()
            else:
                with pytest.raises(Forbidden, match="cannot " + verb):
                    ask()


def test_no_role_lets_anybody_create_list_or_delete(trial: list[Object]) -> None:
    for role in (one for one in trial if one["kind"] == "Role"):
        for rule in role["rules"]:
            assert set(rule["verbs"]) <= {"get", "patch"}
            assert rule["resources"] == ["configmaps"]
            assert rule["resourceNames"]
    assert not [one for one in trial if one["kind"].startswith("Cluster") and "Role" in one["kind"]]


def test_a_stranger_and_an_untrusted_server_are_told_apart(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = cluster.member("consensus")
    folder = Path(settings["NOCTURNE_KUBERNETES_DIR"])
    (folder / "token").write_text("stolen")
    with pytest.raises(Forbidden, match="Unauthorized"):
        cluster.run(kubernetes.join, settings)
    (folder / "token").write_text("two\nlines")
    with pytest.raises(NocturneError, match="expected a service account's token"):
        cluster.run(kubernetes.join, settings)
    with serving(cluster.api, tmp_path / "impostor"):
        shutil.copy(tmp_path / "impostor" / "ca.crt", folder / "ca.crt")
        (folder / "token").write_text(cluster.api.token_for(f"{RELEASE}-consensus"))
        with pytest.raises(NocturneError, match="CERTIFICATE_VERIFY_FAILED"):
            cluster.run(kubernetes.join, settings)


def test_an_api_server_that_is_away_for_a_while_is_waited_for(cluster: Cluster) -> None:
    answers = itertools.count()

    def away(method: str, name: str) -> None:
        if next(answers) % 4 < 2:
            raise Refusal(503, "the server is currently unable to handle the request")

    cluster.api.before = away
    with pytest.raises(NocturneError, match="in vain"):
        cluster.run(kubernetes.join, {**cluster.member("consensus"), "NOCTURNE_WAIT_SECONDS": "40"})
    assert cluster.api.config_maps[f"{RELEASE}-contribution-validator-0"]["data"]


def test_a_patch_of_an_old_version_and_of_an_immutable_object_is_refused(cluster: Cluster) -> None:
    cluster.found()
    client = ConfigMaps(
        os.environ["KUBERNETES_SERVICE_HOST"],
        int(os.environ["KUBERNETES_SERVICE_PORT"]),
        cluster.token("genesis"),
    )
    known = client.get(f"{RELEASE}-genesis")
    with pytest.raises(Forbidden, match="immutable"):
        client.add(known, binary={"genesis.avro": b"another"})
    mine = ConfigMaps(client.host, client.port, cluster.token("consensus"))
    old = mine.get(f"{RELEASE}-contribution-validator-0")
    mine.add(old, texts={"a": "1"})
    with pytest.raises(Conflict):
        mine.add(old, texts={"a": "2"})


def test_what_the_chart_says_of_an_object_survives_the_ceremony(cluster: Cluster) -> None:
    before = {
        name: dict(one["metadata"]["labels"]) for name, one in cluster.api.config_maps.items()
    }
    cluster.found()
    for name, one in cluster.api.config_maps.items():
        assert one["metadata"]["labels"] == before[name]
    kept = cluster.api.config_maps[f"{RELEASE}-genesis"]["metadata"]["annotations"]
    assert kept == {"helm.sh/resource-policy": "keep"}
