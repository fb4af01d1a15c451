"""Run a compose file without a container engine: each of its services as a process of this machine.

The file is read by compose-go, the code that `docker compose` reads it with, and translated by
these rules alone. Whatever has no rule here fails, so that no setting goes untested unseen.

    image                  a Python environment with the wheel, or the same program from elsewhere
                           (`Images`)
    command, entrypoint,   as they are, but for addresses and paths:
    environment
    a service's name       a loopback address of its own, where the file gives both a network, so
                           that ports stay what they are; a name without a network is an error
    0.0.0.0, 127.0.0.1     the service's own loopback address
    volumes, bind mounts   folders, put under a root folder of the service at their targets; the
                           root folder itself is closed to its user when the file says `read_only`
    user                   the process's user, where this is run by root: it writes what it may
                           write in a container, and reads whatever there is
    depends_on             the order, and what is waited for
    healthcheck            run as it is

What only an engine can hold a process to (networks, capabilities, memory, restarts) is not
emulated; tests/unit/deploy/test_compose_file.py looks at what the file asks for.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tests.go_tools import COMPOSE_GO

from nocturne.embedded.processes import launched

ROOT: Final = Path(__file__).resolve().parents[1]
FILE: Final = ROOT / "docker-compose.yml"
SECURED: Final = ROOT / "docker-compose.secured.yml"
REPLICATED: Final = ROOT / "docker-compose.replicated.yml"
MORE: Final = ROOT / "docker-compose.more.yml"
OWN_IMAGE: Final = "nocturne"
IMAGE_FOLDERS: Final = ("/var/lib/nocturne",)
"""Folders of our image that nothing need be mounted at."""
IMAGE_USER: Final = (10001, 10001)
"""Whose they are, as the recipe says; nobody else may pass them."""
JOB_SECONDS_MAX: Final = 180.0
LOOK_SECONDS: Final = 0.1
DOWN_SECONDS_MAX: Final = 10.0
SAID_CHARACTERS_MAX: Final = 4_000

Values = dict[str, Any]

TRANSLATED: Final = {
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "networks",
    "profiles",
    "read_only",
    "restart",
    "stop_grace_period",
    "stop_signal",
    "tmpfs",
    "user",
    "volumes",
}
FOR_AN_ENGINE: Final = {
    "build",
    "cap_add",
    "cap_drop",
    "init",
    "logging",
    "mem_limit",
    "pids_limit",
    "ports",
    "security_opt",
    "shm_size",
}


def normalised(*files: Path, instead: Mapping[str, str] | None = None) -> Values:
    """The model of these files, later ones laid over earlier ones, as `docker compose` has it when
    no variable is set: compose-go's program interpolates defaults and reads no environment.
    `instead` says what stands for some of the values that came out of that.
    """
    done = subprocess.run(
        [str(COMPOSE_GO.program()), "-format", "json", *map(str, files)],
        env={"PATH": os.environ["PATH"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    for default, value in (instead or {}).items():
        assert json.dumps(default)[1:-1] in text, f"nothing has the default {default}"
        text = text.replace(json.dumps(default)[1:-1], json.dumps(value)[1:-1])
    model: Values = json.loads(text)
    return model


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the file, and where it is here."""

    name: str
    asked: Values
    address: str
    root: Path

    @property
    def image(self) -> str:
        """The image's name without its tag."""
        return str(self.asked["image"]).partition(":")[0]

    @property
    def profiles(self) -> set[str]:
        """What it is started for; none: always."""
        return set(self.asked.get("profiles", ()))

    @property
    def networks(self) -> set[str]:
        """The networks that it is in."""
        if self.asked.get("network_mode") == "none":
            return set()
        return set(self.asked.get("networks", {}))

    @property
    def depends_on(self) -> dict[str, str]:
        """The services that come first, and what is waited for."""
        return {name: one["condition"] for name, one in self.asked.get("depends_on", {}).items()}

    @property
    def environment(self) -> dict[str, str]:
        """What the file sets; a list of `NAME=value` when it was put together of several files."""
        given = self.asked.get("environment", {})
        if isinstance(given, list):
            given = dict(one.split("=", 1) for one in given)
        return {name: str(value) for name, value in given.items()}

    @property
    def user(self) -> tuple[int, int] | None:
        """uid and gid; None: the image's own."""
        if "user" not in self.asked:
            return None
        uid, _, gid = str(self.asked["user"]).partition(":")
        return int(uid), int(gid)

    @property
    def folders(self) -> dict[str, str]:
        """Targets of volumes, and the volumes."""
        found = {}
        for one in self.asked.get("volumes", ()):
            sort, source = one["type"], one["source"]
            assert sort in ("bind", "volume"), f"{self.name}: no rule for a mount of {sort}"
            # Of a folder of this machine the whole path, which no volume's name is.
            assert (sort == "bind") == source.startswith("/"), f"{self.name}: {source}"
            found[one["target"]] = source
        return found

    @property
    def scratch(self) -> list[str]:
        """Targets of tmpfs."""
        return [one.partition(":")[0] for one in self.asked.get("tmpfs", ())]


@dataclass(frozen=True, slots=True)
class Program:
    """What is started for a service. `once` runs before, to its end."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    user: tuple[int, int] | None = None
    once: tuple[Sequence[str], ...] = ()


class Images(Protocol):
    """Stands for the images: makes a program of a service whose addresses and paths are ours."""

    def program(self, service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        """`argv` is what the file says (empty: nothing), `env` its environment and no more."""

    def check(self, service: Service, argv: Sequence[str]) -> list[str]:
        """The command of a health check as it is here."""


class NoImages:
    """For who only looks."""

    def program(self, service: Service, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        """AssertionError: nothing is started."""
        raise AssertionError(f"{service.name}: nothing is started here")

    def check(self, service: Service, argv: Sequence[str]) -> list[str]:
        """AssertionError: nothing is started."""
        raise AssertionError(f"{service.name}: nothing is started here")


@dataclass
class Composition:
    """The services of a file, as processes under one folder."""

    model: Values
    folder: Path
    images: Images
    network: str
    """The first three numbers of the services' addresses."""
    services: dict[str, Service] = field(init=False)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = {}
        for number, (name, asked) in enumerate(sorted(self.model["services"].items()), start=1):
            unknown = set(asked) - TRANSLATED - FOR_AN_ENGINE
            assert not unknown, f"{name}: no rule for {sorted(unknown)}"
            root = self.folder / "containers" / name
            self.services[name] = Service(name, asked, f"{self.network}.{number}", root)

    # Running ------------------------------------------------------------------------------

    def up(self, *profiles: str) -> list[str]:
        """Start everything that belongs to no profile or to these; the names, in their order."""
        started: list[str] = []
        for name in self.order(*profiles):
            self.start(name)
            started.append(name)
        return started

    def order(self, *profiles: str) -> list[str]:
        """Services so that each comes after those that it depends on."""
        wanted = [
            one.name
            for one in self.services.values()
            if not one.profiles or one.profiles & set(profiles)
        ]
        found: list[str] = []

        def visit(name: str) -> None:
            if name not in found:
                for earlier in self.services[name].depends_on:
                    visit(earlier)
                found.append(name)

        for name in wanted:
            visit(name)
        return found

    def start(self, name: str) -> None:
        """Start one service once what it depends on is as the file asks; a job runs to its end."""
        service = self.services[name]
        for earlier, condition in service.depends_on.items():
            self._wait(earlier, condition)
        self._make_root(service)
        program = self._program(service)
        for argv in program.once:
            self._run_once(service, argv, program)
        self.running[name] = self._popen(service, program.argv, program)

    def until_healthy(self, *names: str) -> None:
        """Wait for the health of these, or of everything that runs and has a health check."""
        for name in names or [*self.running]:
            check = self.services[name].asked.get("healthcheck", {})
            if not check.get("disable"):
                self._wait_healthy(name, self.running[name])

    def ran(self, name: str) -> bool:
        """Whether it was started."""
        return name in self.running

    def run_job(self, name: str) -> int:
        """Run a job that was run before once more; its exit code."""
        self.start(name)
        return self.running[name].wait(JOB_SECONDS_MAX)

    def stop(self, name: str) -> int:
        """Stop one as the engine does: its signal, its time, then none is left. Its exit code."""
        process = self.running[name]
        if process.poll() is None:
            asked = self.services[name].asked
            process.send_signal(signal.Signals[asked.get("stop_signal", "SIGTERM")])
        return process.wait(_seconds(self.services[name].asked.get("stop_grace_period", "10s")))

    def down(self) -> None:
        """End whatever still runs, the last started first; nobody needs any of it any more."""
        for name in reversed(self.running):
            process = self.running[name]
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(DOWN_SECONDS_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def healthy(self, name: str) -> bool:
        """What the service's health check says now."""
        service = self.services[name]
        sort, *argv = service.asked["healthcheck"]["test"]
        assert sort == "CMD", f"{name}: no rule for a health check by {sort}"
        argv = self.images.check(service, [self.text(service, one) for one in argv])
        try:
            done = subprocess.run(
                argv,
                env={**os.environ, **self._environment(service)},
                capture_output=True,
                timeout=_seconds(service.asked["healthcheck"]["timeout"]),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def said(self, name: str) -> str:
        """The end of what a service wrote."""
        return self.log(name).read_text(errors="replace")[-SAID_CHARACTERS_MAX:]

    def log(self, name: str) -> Path:
        """Its log."""
        return self.folder / "logs" / f"{name}.log"

    def volume(self, name: str) -> Path:
        """The folder of a volume; of a mount of this machine's own, that."""
        return self.folder / "volumes" / name

    def _wait(self, name: str, condition: str) -> None:
        process = self.running[name]
        match condition:
            case "service_completed_successfully":
                assert process.wait(JOB_SECONDS_MAX) == 0, f"{name} failed: {self.said(name)}"
            case "service_healthy":
                self._wait_healthy(name, process)
            case "service_started":
                pass
            case other:
                raise AssertionError(f"{name}: no rule for the condition {other}")

    def _wait_healthy(self, name: str, process: subprocess.Popen[bytes]) -> None:
        check = self.services[name].asked["healthcheck"]
        patience = _seconds(check.get("start_period", "0s"))
        patience += check["retries"] * (_seconds(check["interval"]) + _seconds(check["timeout"]))
        deadline = time.monotonic() + patience
        while not self.healthy(name):
            assert process.poll() is None, f"{name} ended: {self.said(name)}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {self.said(name)}"
            time.sleep(LOOK_SECONDS)

    def _run_once(self, service: Service, argv: Sequence[str], program: Program) -> None:
        code = self._popen(service, argv, program).wait(JOB_SECONDS_MAX)
        assert code == 0, f"{service.name}, {argv[:3]}: {self.said(service.name)}"

    def _popen(
        self, service: Service, argv: Sequence[str], program: Program
    ) -> subprocess.Popen[bytes]:
        user = None
        if program.user is not None and os.geteuid() == 0:
            # It may read whatever it can reach, because Python or the jars may lie in a folder that
            # is closed to others; it may write only what is its own.
            user = "{}:{}".format(*program.user)
        elif service.user == (0, 0) and os.geteuid() == 0:
            argv = [*_with_rights(service), *argv]
        self.log(service.name).parent.mkdir(exist_ok=True)
        with self.log(service.name).open("ab") as output:
            return subprocess.Popen(
                launched(argv, user),
                env=dict(program.environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    # Translating --------------------------------------------------------------------------

    def text(self, service: Service, text: str) -> str:
        """A part of a command or a setting, with our addresses and folders in it."""
        return self._paths(service, self._addresses(service, text))

    def _addresses(self, service: Service, text: str) -> str:
        def resolve(found: re.Match[str]) -> str:
            other = self.services[found[0]]
            together = other.name == service.name or other.networks & service.networks
            assert together, f"{service.name} has no network with {other.name}: {text}"
            return other.address

        names = "|".join(sorted(map(re.escape, self.services), key=len, reverse=True))
        text = re.sub(r"(?<![\d.])(0\.0\.0\.0|127\.0\.0\.1)(?![\d.])", service.address, text)
        return re.sub(rf"(?<![\w.-])(?:{names})(?=[:/]\d)", resolve, text)

    def _paths(self, service: Service, text: str) -> str:
        # An engine makes the folder in which a volume is mounted, as root's.
        parents = {str(Path(target).parent) for target in service.folders} - {"/"}
        known = {*service.folders, *service.scratch, *IMAGE_FOLDERS, *parents}
        places = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
        text = re.sub(
            rf"(?<![\w./-])(?:{places})(?![\w.-])", lambda one: f"{service.root}{one[0]}", text
        )
        stray = service.image == OWN_IMAGE and text.startswith("/")
        assert not stray or text.startswith(str(self.folder)), f"{service.name}: nothing at {text}"
        return text

    def _environment(self, service: Service) -> dict[str, str]:
        given = service.environment
        return {name: self.text(service, value) for name, value in given.items()}

    def _program(self, service: Service) -> Program:
        entry = service.asked.get("entrypoint") or ()
        argv = [self.text(service, one) for one in (*entry, *(service.asked.get("command") or ()))]
        return self.images.program(service, argv, self._environment(service))

    def _make_root(self, service: Service) -> None:
        """The folders that the service sees. As with an engine a volume that is new is the user's
        of the image when the image has its folder, and root's when it has not.
        """
        for target in service.scratch:
            self._folder(service, target).mkdir(exist_ok=True, mode=0o777)
            self._folder(service, target).chmod(0o1777)
        for target, source in service.folders.items():
            place, volume = self._folder(service, target), self.volume(source)
            assert volume.is_dir() or not source.startswith("/"), f"{service.name}: no {source}"
            if not volume.exists():
                volume.mkdir(parents=True)
                if service.user is not None and target in IMAGE_FOLDERS and os.geteuid() == 0:
                    os.chown(volume, *service.user)
                    volume.chmod(0o700)
            if not place.is_symlink():
                place.symlink_to(volume)
        for target in IMAGE_FOLDERS:
            place = self._folder(service, target)
            place.mkdir(exist_ok=True)
            if not place.is_symlink() and os.geteuid() == 0:
                # As the recipe makes it, whoever the service runs as.
                os.chown(place, *IMAGE_USER)
                place.chmod(0o700)

    def _folder(self, service: Service, target: str) -> Path:
        place = service.root / target.lstrip("/")
        for one in reversed([place, *place.parents]):
            assert not (one.is_symlink() and one != place), f"{service.name}: a mount in {one}"
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _with_rights(service: Service) -> list[str]:
    """What leaves root only the rights that the file gives it."""
    assert service.asked.get("cap_drop") == ["ALL"], f"{service.name} keeps rights as root"
    kept = [f"+{one.lower()}" for one in service.asked.get("cap_add") or ()]
    return ["setpriv", f"--bounding-set={','.join(['-all', *kept])}", "--inh-caps=-all", "--"]


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found, f"no rule for the duration {text}"
    return 60.0 * int(found[1] or 0) + int(found[2] or 0)


@contextmanager
def composed(model: Values, folder: Path, images: Images, network: str) -> Iterator[Composition]:
    """A composition, which is taken down at the end whatever happens."""
    with ExitStack() as stack:
        made = Composition(model, folder, images, network)
        stack.callback(made.down)
        yield made


def python_of(environment: Path) -> Path:
    """The interpreter of a Python environment."""
    return environment / "bin" / Path(sys.executable).name
