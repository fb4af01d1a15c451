"""What the image's recipe says. No engine builds it here: this is all that is known of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests import dockerfile
from tests.dockerfile import ROOT, Dockerfile, Stage

OWN_USER = "10001:10001"


@pytest.fixture(scope="module")
def recipe() -> Dockerfile:
    return dockerfile.read()


@pytest.fixture(scope="module")
def final(recipe: Dockerfile) -> Stage:
    return recipe.final


def test_every_stage_stands_on_one_named_release_of_python(recipe: Dockerfile) -> None:
    assert {stage.base for stage in recipe.stages} == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"python:3\.11(\.\d+)?-slim-[a-z]+", recipe.arguments["PYTHON_IMAGE"])


def test_the_image_runs_as_a_user_with_a_number_and_never_goes_back_to_root(final: Stage) -> None:
    assert [one.rest for one in final.all("USER")] == [OWN_USER]
    after = final.instructions[final.instructions.index(final.one("USER")) :]
    assert not [one for one in after if one.name in ("RUN", "COPY")]


def test_nothing_is_fetched_but_by_hash(recipe: Dockerfile) -> None:
    for stage in recipe.stages:
        assert not stage.all("ADD")
        for one in stage.all("RUN"):
            assert not re.search(r"curl|wget|https?://|apt-get|git clone", one.rest)
            for install in re.findall(r"pip install[^&]*", one.rest):
                assert "--require-hashes" in install or "--no-index" in install


def test_nothing_is_compiled_so_no_compiler_can_be_left(recipe: Dockerfile) -> None:
    installs = [
        found
        for stage in recipe.stages
        for one in stage.all("RUN")
        for found in re.findall(r"pip install --require-hashes[^&]*", one.rest)
    ]
    assert len(installs) == 2
    assert all("--only-binary :all:" in one for one in installs)


def test_the_final_stage_takes_one_folder_from_the_build_and_its_owner_is_root(
    final: Stage,
) -> None:
    (copied,) = final.all("COPY")
    assert copied.flags == {"from": "build", "chown": "0:0"}
    assert copied.words == ["/opt/nocturne", "/opt/nocturne"]


def test_the_build_copies_nothing_of_which_the_ignore_file_lets_nothing_through(
    recipe: Dockerfile,
) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "**", "whatever is not named stays outside"
    let_in = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = {
        source
        for one in recipe.stages[0].all("COPY")
        if "from" not in one.flags
        for source in one.words[:-1]
    }
    assert copied == let_in
    assert all((ROOT / one).exists() for one in copied)


def test_the_wheel_needs_no_file_that_the_build_lacks() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["services/nocturne"]' in project
    assert 'license-files = ["LICENSE"]' in project


def test_health_is_asked_by_the_probe_and_the_stop_signal_is_the_one_services_drain_on(
    final: Stage,
) -> None:
    assert final.command_of("HEALTHCHECK") == ["python", "-m", "nocturne.runtime.probe", "ready"]
    assert {"interval", "timeout", "start-period", "retries"} == set(final.one("HEALTHCHECK").flags)
    assert final.one("STOPSIGNAL").rest == "SIGTERM"


def test_what_is_written_goes_to_the_home_or_to_tmp(final: Stage) -> None:
    environment = final.environment
    assert environment["HOME"] == environment["TMPDIR"] == "/tmp"
    assert environment["NOCTURNE_HOME_DIR"] == "/var/lib/nocturne"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    made = re.findall(r"install -d -o (\d+) -g \d+ -m (\d+) (\S+)", final.one("RUN").rest)
    assert made == [("10001", "0700", "/var/lib/nocturne")]


def test_no_argument_and_no_variable_is_a_secret(recipe: Dockerfile) -> None:
    for stage in recipe.stages:
        names = [one.rest.partition("=")[0] for one in stage.all("ARG")] + [*stage.environment]
        assert not [name for name in names if re.search("PASSWORD|TOKEN|SECRET|KEY", name)]


def test_the_labels_that_registries_read_are_there(final: Stage) -> None:
    labels = {word.partition("=")[0] for word in final.one("LABEL").words}
    wanted = ("title", "description", "licenses", "version", "revision", "created", "source")
    assert labels == {f"org.opencontainers.image.{name}" for name in wanted}


def test_the_tools_that_build_the_wheel_are_those_of_the_developers() -> None:
    def pins(name: str) -> dict[str, str]:
        text = Path(ROOT / "requirements" / name).read_text()
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    build, developers = pins("build.lock"), pins("dev.lock")
    assert "hatchling" in build
    assert build.items() <= developers.items()
