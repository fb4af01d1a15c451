"""What stands for the images of the compose file on this machine.

nocturne               an environment with the locked packages and the wheel, as the recipe makes
                       it (`image_environment`), and the recipe's ENV
apache/kafka           the jars of the embedded broker. Its settings are made by
                       `kafka.docker.KafkaDockerWrapper`, the very program with which the image
                       turns its environment into server.properties and formats its folder
postgres               the programs of the embedded server; what the image's entry point does
                       with POSTGRES_… is done here, and any other setting is refused
apicurio/…             the package that the image holds (tests/apicurio.py)
versity/versitygw      the program, built from the same version
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests import apicurio, dockerfile
from tests.compose import OWN_IMAGE, Program, Service
from tests.e2e.wheels import ROOT, build_wheel, run
from tests.go_tools import VERSITYGW

from nocturne.embedded import downloads, kafka, postgres

PGDATA: Final = "/var/lib/postgresql/18/docker"
"""Where the image of PostgreSQL 18 has its data when nobody says otherwise."""
POSTGRES_SETTINGS: Final = {
    *("POSTGRES_DB", "POSTGRES_INITDB_ARGS", "POSTGRES_PASSWORD_FILE", "POSTGRES_USER")
}


def image_environment(folder: Path) -> Path:
    """What the image's recipe makes: the locked packages and the wheel, nothing else; its `bin`."""
    uv = Path(sys.executable).with_name("uv")
    wheel = build_wheel(ROOT, folder / "dist")
    run(uv, "venv", "--python", sys.executable, folder / "image", cwd=folder)
    python = folder / "image/bin/python"
    install = (uv, "pip", "install", "--python", python)
    lock = ROOT / "requirements/runtime.lock"
    run(*install, "--no-build", "--require-hashes", "-r", lock, cwd=folder)
    run(*install, "--no-deps", wheel, cwd=folder)
    return folder / "image/bin"


class LocalImages:
    """The programs of this machine that stand for the images."""

    def __init__(self, own: Path) -> None:
        """`own` is the folder of programs that stands for our image."""
        self.own = own
        self._recipe = dockerfile.read().final

    def program(self, service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        """The program of a service. AssertionError for an image that nothing stands for."""
        match service.image:
            case image if image == OWN_IMAGE:
                return self._nocturne(service, argv, env)
            case "apache/kafka":
                return _kafka(service, argv, env)
            case "postgres":
                return _postgres(service, argv, env)
            case "apicurio/apicurio-registry":
                return _registry(service, argv, env)
            case "versity/versitygw":
                return _store(service, argv, env)
        raise AssertionError(f"{service.name}: nothing here stands for the image {service.image}")

    def check(self, service: Service, argv: Sequence[str]) -> list[str]:
        """The health check, with a program of this machine for the image's."""
        programs = {
            "python": self.own / "python",
            "pg_isready": postgres.binaries() / "pg_isready",
        }
        return [str(programs.get(argv[0], argv[0])), *argv[1:]]

    def _nocturne(self, service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        program, *arguments = argv or self._recipe.command_of("CMD")
        base = {**self._recipe.environment, "PATH": f"{self.own}:{os.environ['PATH']}"}
        scratch = service.scratch[0]
        for name in ("HOME", "TMPDIR"):
            assert base[name] == scratch, f"{service.name}: {base[name]} is not writable"
            base[name] = str(service.root / scratch.lstrip("/"))
        defaults = {name: value for name, value in base.items() if name.startswith("NOCTURNE_")}
        assert service.user is not None, f"{service.name} names no user"
        return Program(
            [str(self.own / program), *arguments],
            # What the recipe sets of our own settings is for who runs the image alone.
            {name: value for name, value in base.items() if name not in defaults} | dict(env),
            None if service.user == (0, 0) else service.user,
        )


def _kafka(service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
    assert not argv, "the image's own command is what makes its settings"
    classpath = downloads.ensure_kafka(downloads.cache_folder(os.environ))
    folders = [service.root / name for name in ("defaults", "mounted", "config")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    java = [str(kafka.java()), *kafka.JVM_OPTIONS]
    options = ("--default-configs-dir", "--mounted-configs-dir", "--final-configs-dir")
    places = [part for pair in zip(options, map(str, folders), strict=True) for part in pair]
    setup = [*java, "kafka.docker.KafkaDockerWrapper", "setup", *places]
    formatted = (service.root / "var/lib/kafka/data/meta.properties").exists()
    if formatted:
        # The image's own start finds it formatted and goes on.
        setup = ["sh", "-c", '"$@" || true', "sh", *setup]
    return Program(
        [*java, "kafka.Kafka", str(folders[-1] / "server.properties")],
        {**env, "PATH": os.environ["PATH"], "CLASSPATH": ":".join(map(str, classpath))},
        once=(setup,),
    )


def _postgres(service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
    unknown = set(env) - POSTGRES_SETTINGS
    assert not unknown, f"{service.name}: no rule for {sorted(unknown)}"
    assert argv[0] == "postgres"
    binaries, data = postgres.binaries(), service.root / PGDATA.lstrip("/")
    user = _postgres_user(service)
    once: tuple[Sequence[str], ...] = ()
    if not (data / "PG_VERSION").exists():
        owner, database = env["POSTGRES_USER"], env["POSTGRES_DB"]
        initdb = [
            *(str(binaries / "initdb"), f"--pgdata={data}", f"--username={owner}"),
            *(f"--pwfile={env['POSTGRES_PASSWORD_FILE']}", "--no-instructions"),
            *env["POSTGRES_INITDB_ARGS"].split(),
        ]
        create = [
            *(str(binaries / "postgres"), "--single", "-j", "-D", str(data), "template1"),
        ]
        once = (initdb, ["sh", "-c", f'echo "CREATE DATABASE {database};" | "$@"', "sh", *create])
        # The image opens the server to its network with a line of its own.
        once = (*once, ["sh", "-c", f'echo "host all all all scram-sha-256" >> {data}/pg_hba.conf'])
    return Program(
        [
            *(str(binaries / "postgres"), "-D", str(data), *argv[1:]),
            *("-c", f"listen_addresses={service.address}", "-c", "unix_socket_directories="),
        ],
        {**postgres.environment(), **env},
        user,
        once,
    )


def _postgres_user(service: Service) -> tuple[int, int] | None:
    """PostgreSQL wants a user that has a name. The image's has one there and none here: another
    takes its place, and its folder, which the image gives to its own.
    """
    named = postgres.user()
    if named is None:
        return None
    uid, gid = map(int, named.split(":"))
    for target in service.folders:
        if PGDATA.startswith(target):
            os.chown(service.root / target.lstrip("/"), uid, gid)
    return uid, gid


def _registry(service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
    assert not argv
    jar = apicurio.unpacked() / "quarkus-run.jar"
    return Program(
        [str(kafka.java()), *apicurio.JVM_OPTIONS, "-jar", str(jar)],
        {
            **env,
            "PATH": os.environ["PATH"],
            "QUARKUS_HTTP_HOST": service.address,
            # Nobody asks it here, and another registry of this machine may have its port.
            "QUARKUS_MANAGEMENT_PORT": "0",
        },
    )


def _store(service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
    assert argv[0] == "sh"
    shell = shutil.which("sh")
    assert shell is not None
    path = f"{VERSITYGW.program().parent}:{os.environ['PATH']}"
    return Program([shell, *argv[1:]], {**env, "PATH": path}, service.user)
