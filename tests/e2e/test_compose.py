"""The compose file, run: every service and job of it as a process with exactly its command and
environment, and the demonstration on them to its end.

What stands for engine and images: tests/compose.py, tests/compose_images.py. The images themselves
are never built here.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from tests.certificates import SERVER, Authority
from tests.compose import FILE, REPLICATED, ROOT, SECURED, Composition, composed, normalised
from tests.compose_images import LocalImages, image_environment

from nocturne.client import Client, Committed, Credentials, SyncClient, TlsRefused
from nocturne.core.commands import Opening
from nocturne.core.errors import NocturneError
from nocturne.core.keys import Ed25519Signer

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]

VALIDATORS = tuple(f"consensus-{ordinal}" for ordinal in range(4))
SERVICES = ("command", *VALIDATORS, "projection", "query", "signing")
JOBS = ("secrets", "genesis", "topics", "database", "schemas")
HEALTHY_SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LocalImages:
    return LocalImages(image_environment(tmp_path_factory.mktemp("image")))


@pytest.fixture(scope="module")
def ledger(images: LocalImages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """Everything that `docker compose up` starts, healthy."""
    model = normalised(FILE, instead={"--commands=1000": "--commands=300"})
    with composed(model, tmp_path_factory.mktemp("compose"), images, network()) as made:
        made.up()
        made.until_healthy()
        yield made


def network() -> str:
    """Loopback addresses of our own: several tests may run at once."""
    dice = random.SystemRandom()
    return f"127.{dice.randrange(10, 250)}.{dice.randrange(1, 250)}"


def test_every_service_of_the_file_is_healthy_by_its_own_health_check(ledger: Composition) -> None:
    assert set(SERVICES) < set(ledger.running)
    assert all(ledger.healthy(name) for name in SERVICES)
    assert all(ledger.running[name].poll() == 0 for name in JOBS)


def test_the_demonstration_runs_to_its_end_on_these_services(ledger: Composition) -> None:
    assert ledger.run_job("demo") == 0, ledger.said("demo")
    said = " ".join(ledger.said("demo").split())
    assert "All 14 attacks were caught, and all" in said
    assert (ledger.volume("demo") / "report.html").read_text().startswith("<!")


def test_a_ledger_that_has_been_used_is_not_shown_again(ledger: Composition) -> None:
    if not ledger.ran("demo"):
        pytest.skip("the demonstration has not run")
    assert ledger.run_job("demo") == 1
    assert "the demonstration needs a new one" in ledger.said("demo")


def test_every_job_may_run_again_and_changes_nothing(ledger: Composition) -> None:
    keys = (f"keys-{name}" for name in (*VALIDATORS, "signing", "operator"))
    kept = ("genesis", "secrets", *keys)
    before = {name: contents(ledger.volume(name)) for name in kept}
    for name in JOBS:
        assert ledger.run_job(name) == 0, ledger.said(name)
    assert {name: contents(ledger.volume(name)) for name in kept} == before
    assert all(ledger.healthy(name) for name in SERVICES)


def test_the_read_model_is_rebuilt_by_the_job_that_the_runbook_names(ledger: Composition) -> None:
    assert ledger.run_job("rebuild") == 0, ledger.said("rebuild")
    (report,) = [
        found["report"]
        for line in ledger.said("rebuild").splitlines()
        if line.startswith("{") and "report" in (found := json.loads(line))
    ]
    assert (report["outcome"], report["equal"]) == ("swapped", True)
    assert ledger.healthy("query")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a volume."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_each_secret_belongs_to_its_reader_and_nobody_else_reads_it(ledger: Composition) -> None:
    for name in ledger.running:
        service = ledger.services[name]
        for target, source in service.folders.items():
            if name != "secrets" and source.startswith(("secrets-", "keys-")):
                for path in ledger.volume(source).iterdir():
                    private = not path.name.endswith(".pub")
                    uid = path.stat().st_uid
                    assert uid == (service.user or (1000, 1000))[0], f"{name}: {target}/{path.name}"
                    assert not private or stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_every_service_ends_on_its_signal_within_its_time_and_goes_on_afterwards(
    ledger: Composition,
) -> None:
    before = submit(ledger, "compose/restart", 1)
    for name in SERVICES:
        began = time.monotonic()
        assert ledger.stop(name) == 0, ledger.said(name)
        assert time.monotonic() - began < 10.0
    for name in SERVICES:
        ledger.start(name)
    ledger.until_healthy(*SERVICES)
    assert submit(ledger, "compose/restart", 2).place.height > before.place.height


def test_the_broker_and_the_database_come_back_with_what_they_had(ledger: Composition) -> None:
    submit(ledger, "compose/brokers", 1)
    for name in ("kafka", "postgres", "registry"):
        ledger.stop(name)
        ledger.start(name)
    ledger.until_healthy()
    submit(ledger, "compose/brokers", 2)


def test_the_store_of_the_profile_answers(ledger: Composition) -> None:
    ledger.start("store")
    ledger.until_healthy("store")


def submit(
    ledger: Composition, session: str, number: int, credentials: Credentials | None = None
) -> Committed:
    """One event, written and awaited as a user would; services that just came back are retried."""
    command, query = (f"{ledger.services[name].address}:7400" for name in ("command", "query"))
    genesis = (ledger.volume("genesis") / "genesis.avro").read_bytes()
    signer = Ed25519Signer(session.encode().ljust(32, b"."))
    opening = Opening("facts", 1) if number == 1 else None
    made = Client(command, query, genesis=genesis, signer=signer, credentials=credentials)
    with SyncClient(made) as client:
        draft = client.json("Noted", {"number": number})
        result = client.append(session, [draft], opening=opening)
    assert isinstance(result, Committed), result
    return result


def test_with_certificates_and_roles_only_who_is_let_in_comes_in(
    images: LocalImages, tmp_path: Path
) -> None:
    """The overlay with TLS and an access file, and the demonstration through both."""
    authority, prefix = Authority(), network()
    numbers = sorted(normalised(FILE)["services"])
    folder, token = tmp_path / "certificates", secrets.token_urlsafe(32)
    access = {
        "principals": [
            {
                "name": "demo",
                "roles": ["submit", "audit"],
                "tokens": [f"sha256-{sha256(token.encode()).hexdigest()}"],
            }
        ]
    }
    for name in ("command", "query", *VALIDATORS):
        # In a container the host is the service's name; here it is its address.
        address = f"{prefix}.{numbers.index(name) + 1}"
        authority.make(name, name, address, use=SERVER).write(folder / name, "tls")
        (folder / name / "access.json").write_text(json.dumps(access))
        authority.write(folder / name / "ca.crt")
    authority.write(folder / "demo" / "ca.crt")
    (folder / "demo" / "demo.token").write_text(token)
    instead = {str(ROOT / "certificates"): str(folder), "--commands=1000": "--commands=150"}
    model = normalised(FILE, SECURED, instead=instead)
    with composed(model, tmp_path / "run", images, prefix) as made:
        made.up()
        made.until_healthy()
        with pytest.raises(TlsRefused):
            submit(made, "compose/stranger", 1)
        with pytest.raises(NocturneError, match="token"):
            submit(made, "compose/stranger", 1, Credentials(ca_file=folder / "demo" / "ca.crt"))
        assert made.run_job("demo") == 0, made.said("demo")
        assert "attacks were caught" in made.said("demo")


def test_the_command_line_writes_and_reads_as_the_guide_says(
    ledger: Composition, images: LocalImages, tmp_path: Path
) -> None:
    def nocturne(*arguments: str) -> str:
        done = subprocess.run(
            [str(images.own / "nocturne"), *arguments],
            env={
                "PATH": os.environ["PATH"],
                "NOCTURNE_HOME": str(tmp_path / "home"),
                "NOCTURNE_COMMAND_ADDRESS": f"{ledger.services['command'].address}:7400",
                "NOCTURNE_QUERY_ADDRESS": f"{ledger.services['query'].address}:7400",
                "NOCTURNE_LEDGER": str(ledger.volume("genesis") / "genesis.avro"),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    nocturne("submit", "orders/1", "OrderPlaced", '{"item":"bolts"}')
    assert "OrderPlaced" in nocturne("events", "orders/1")
    nocturne("export", "orders/1", "order.jsonl")
    trusted = str(ledger.volume("genesis") / "genesis.avro")
    nocturne("verify", "order.jsonl", "--trust", trusted)


def test_with_three_brokers_one_may_be_lost(images: LocalImages, tmp_path: Path) -> None:
    model = normalised(FILE, REPLICATED)
    with composed(model, tmp_path, images, network()) as made:
        made.up()
        made.until_healthy()
        assert made.services["command"].environment["NOCTURNE_DURABILITY"] == "replicated"
        submit(made, "compose/replicated", 1)
        lost = made.running["kafka-2"]
        lost.send_signal(signal.SIGKILL)
        lost.wait()
        submit(made, "compose/replicated", 2)
