"""What the compose files ask an engine for: nothing here needs one, and only one test needs Go."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.compose import FILE, MORE, REPLICATED, ROOT, SECURED, Composition, NoImages, normalised

from nocturne.command.service import CommandSettings
from nocturne.consensus.service import Settings as ConsensusSettings
from nocturne.deploy import database, genesis, secrets, topics
from nocturne.deploy.rights import list_of_rights
from nocturne.deploy.secrets import OWN, parse_request
from nocturne.embedded.demo import elsewhere
from nocturne.embedded.services import services_of
from nocturne.projection import rebuild
from nocturne.projection.service import Settings as ProjectionSettings
from nocturne.query.service import Settings as QuerySettings
from nocturne.runtime.lifecycle import STOP_SECONDS_MAX
from nocturne.runtime.settings import PREFIX, ProcessSettings
from nocturne.signing.service import Settings as SigningSettings

Values = dict[str, Any]

IMAGES = {
    "kafka": "apache/kafka:4.3.1",
    "postgres": "postgres:18",
    "registry": "apicurio/apicurio-registry:3.3.3",
    "store": "versity/versitygw:v1.8.0",
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.1.0",
}
VALIDATORS = tuple(f"consensus-{ordinal}" for ordinal in range(4))
SERVICES = ("command", *VALIDATORS, "projection", "query", "signing")
EMBEDDED = services_of(len(VALIDATORS))
JOBS = ("database", "demo", "genesis", "rebuild", "schemas", "secrets", "topics")
BY_HAND = ("demo", "rebuild")
"""Jobs that a person starts."""
SETTINGS: dict[str, type[ProcessSettings]] = {
    "command": CommandSettings,
    **dict.fromkeys(VALIDATORS, ConsensusSettings),
    "database": database.Settings,
    "demo": elsewhere.Settings,
    "rebuild": rebuild.Settings,
    "genesis": genesis.FoundSettings,
    "projection": ProjectionSettings,
    "query": QuerySettings,
    "secrets": secrets.Settings,
    "signing": SigningSettings,
    "topics": topics.Settings,
}
HOME = "/var/lib/nocturne"
HANDED = "/run/nocturne"
"""Where the secrets job has all volumes: not below HOME, which root without rights cannot pass."""
KEYS = {name: f"keys-{name}" for name in (*VALIDATORS, "signing")}


@pytest.fixture(scope="module")
def file() -> Values:
    """The file as YAML has it, anchors and merges applied."""
    found: Values = yaml.safe_load(FILE.read_text())
    return found


@pytest.fixture(scope="module")
def services(file: Values) -> dict[str, Values]:
    found: dict[str, Values] = file["services"]
    return found


def mounts(service: Values) -> dict[str, tuple[str, bool]]:
    """Volume → (target, whether it is read only); folders of the repository are left out."""
    found = {}
    for one in service.get("volumes", ()):
        source, target, *mode = one.split(":")
        if not source.startswith("./"):
            found[source] = (target, mode == ["ro"])
    return found


def networks(service: Values) -> set[str]:
    return set(service.get("networks", ()))


def settings_of(service: Values) -> dict[str, str]:
    found: dict[str, str] = service.get("environment", {})
    return found


# Valid ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [FILE, REPLICATED, SECURED], ids=lambda path: path.name)
def test_the_file_is_one_by_the_compose_specification(path: Path, tmp_path: Path) -> None:
    assert said_of(path) == "ok -- validation done"
    imagined = tmp_path / "imagined.yml"
    imagined.write_text(yaml.safe_dump({"services": {"command": {"imagine": "nocturne"}}}))
    assert "'imagine' does not match" in said_of(imagined)


def said_of(path: Path) -> str:
    """What the check of the compose specification's own schema says of a file."""
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*line, str(path)], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("files", [(FILE,), (FILE, REPLICATED)], ids=["one broker", "three"])
def test_compose_itself_reads_the_files(
    files: tuple[Path, ...], services: dict[str, Values], tmp_path: Path
) -> None:
    model = normalised(*files)
    assert set(services) <= set(model["services"])
    read = Composition(model, tmp_path, NoImages(), "127.0.0")
    for name, service in services.items():
        assert read.services[name].image in service["image"]
        assert set(settings_of(service)) <= set(read.services[name].environment)
    assert set(read.order(*BY_HAND, "store", "observability")) == set(read.services)
    assert set(services) - set(read.order()) == {*(*BY_HAND, "store", "prometheus", "grafana")}


def test_every_service_and_job_of_a_ledger_is_in_it(services: dict[str, Values]) -> None:
    assert {one.name for one in EMBEDDED} == set(SERVICES)
    assert set(services) == {*SERVICES, *JOBS, *IMAGES}
    for one in EMBEDDED:
        assert services[one.name]["command"] == ["python", "-m", one.module]


def test_every_image_of_others_has_its_release_in_its_name(services: dict[str, Values]) -> None:
    assert {name: services[name]["image"] for name in IMAGES} == IMAGES
    own = {services[name]["image"] for name in (*SERVICES, *JOBS)}
    assert own == {"${NOCTURNE_IMAGE:-nocturne:0.1.0}"}


def test_every_setting_is_one_that_its_reader_knows(services: dict[str, Values]) -> None:
    """A name with a slip in it would be left unread without a word."""
    for name, kind in SETTINGS.items():
        known = {PREFIX + field.upper() for field in kind.model_fields}
        assert set(settings_of(services[name])) - known == set(), name


def test_every_volume_and_network_that_is_declared_is_used(
    file: Values, services: dict[str, Values]
) -> None:
    used = {volume for service in services.values() for volume in mounts(service)}
    assert used == set(file["volumes"])
    assert {one for service in services.values() for one in networks(service)} == set(
        file["networks"]
    )


# Secrets ----------------------------------------------------------------------------------------


def handed_over(services: dict[str, Values]) -> dict[str, set[str]]:
    """Volume → the secrets that the secrets job puts in it."""
    job = services["secrets"]
    places = {
        target.removeprefix(f"{HANDED}/places/"): volume
        for volume, (target, _) in mounts(job).items()
        if target.startswith(f"{HANDED}/places/")
    }
    found: dict[str, set[str]] = {}
    for request in map(parse_request, job["command"][3:]):
        if request.name != OWN:
            for place in request.places:
                found.setdefault(places[place], set()).add(request.name)
    return found


def test_each_process_mounts_its_own_secrets_and_no_other_has_them(
    services: dict[str, Values],
) -> None:
    readers: dict[str, set[str]] = {}
    for name, service in services.items():
        for volume in mounts(service):
            if name != "secrets" and volume.startswith("secrets"):
                readers.setdefault(volume, set()).add(name)
    assert all(len(names) == 1 for names in readers.values()), readers
    assert set(readers) == set(handed_over(services))
    for volume, names in readers.items():
        assert names == {volume.removeprefix("secrets-")}


def test_a_process_is_handed_the_secrets_that_its_settings_name_and_no_more(
    services: dict[str, Values],
) -> None:
    given = handed_over(services)
    for name in (*SERVICES, *BY_HAND):
        files = {
            Path(value).name
            for setting, value in settings_of(services[name]).items()
            if setting.endswith("PASSWORD_FILE")
        }
        assert given[f"secrets-{name}"] == files, name


def test_the_jobs_that_make_users_and_roles_have_the_passwords_of_the_list(
    services: dict[str, Values],
) -> None:
    given, listed = handed_over(services), list_of_rights()
    users = {one.secret for one in listed.principals if not one.optional}
    assert given["secrets-topics"] == users
    roles = {role.secret for role in listed.database.roles}
    assert given["secrets-database"] == roles | {listed.database.owner_secret}


def test_each_service_is_the_principal_and_the_role_of_its_name(
    services: dict[str, Values],
) -> None:
    listed = list_of_rights()
    principals = {one.name: one for one in listed.principals}
    for name in SERVICES:
        settings, word = settings_of(services[name]), name.partition("-")[0]
        if name != "query":
            assert settings["NOCTURNE_KAFKA_USER"] == word
            file = Path(settings["NOCTURNE_KAFKA_PASSWORD_FILE"])
            assert file.name == principals[word].secret
        if name in ("projection", "query"):
            role = listed.database.role_of(word)
            assert settings["NOCTURNE_POSTGRES_DSN"].startswith(f"postgresql://{role.name}@")
            assert Path(settings["NOCTURNE_POSTGRES_PASSWORD_FILE"]).name == role.secret


def test_nobody_but_validators_and_signing_mounts_a_key_and_they_cannot_change_it(
    services: dict[str, Values],
) -> None:
    for name, service in services.items():
        keys = {volume: mode for volume, mode in mounts(service).items() if "keys" in volume}
        if name in ("genesis", "secrets"):
            continue
        assert set(keys) == ({KEYS[name]} if name in KEYS else set()), name
        for target, read_only in keys.values():
            assert read_only
            assert settings_of(service)["NOCTURNE_KEY_FILE"].startswith(f"{target}/")


def test_secrets_and_genesis_are_read_only_to_all_who_did_not_make_them(
    services: dict[str, Values],
) -> None:
    for name, service in services.items():
        for volume, (_, read_only) in mounts(service).items():
            if volume.startswith("secrets"):
                assert read_only == (name != "secrets"), f"{name}: {volume}"
            if volume == "genesis":
                assert read_only == (name not in ("genesis", "secrets")), name


def test_no_password_is_in_an_environment_or_in_an_address(services: dict[str, Values]) -> None:
    for name, service in services.items():
        for setting, value in settings_of(service).items():
            if re.search("PASSWORD|SECRET|TOKEN", setting):
                assert setting.endswith(("_FILE", "_DIR")), f"{name}: {setting}"
                assert value.startswith(("/run/secrets/", HOME, HANDED))
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), f"{name}: {setting}"


def test_only_what_shows_the_attacks_of_insiders_has_master_passwords_beside_the_jobs(
    services: dict[str, Values],
) -> None:
    masters = {"kafka-admin", list_of_rights().database.owner_secret}
    holders = {name for name, given in handed_over(services).items() if given & masters}
    assert holders == {
        f"secrets-{one}"
        for one in ("kafka", "postgres", *("topics", "database"), "demo", "rebuild")
    }
    for name in BY_HAND:
        assert services[name]["profiles"] == [name]


def test_the_overlay_with_certificates_gives_each_service_a_folder_of_its_own() -> None:
    overlay = yaml.safe_load(SECURED.read_text())["services"]
    known = {
        *(PREFIX + field.upper() for field in CommandSettings.model_fields),
        *(PREFIX + field.upper() for field in ConsensusSettings.model_fields),
        *(PREFIX + field.upper() for field in elsewhere.Settings.model_fields),
    }
    for name, one in overlay.items():
        (mounted,) = one["volumes"]
        assert mounted == f"${{NOCTURNE_CERTIFICATES:-./certificates}}/{name}:/run/secrets/tls:ro"
        assert set(settings_of(one)) <= known
        assert all(value.startswith("/run/secrets/tls/") for value in settings_of(one).values())
    assert {"command", "query", *VALIDATORS} < set(overlay), "whatever is published"


# Validators -------------------------------------------------------------------------------------


def test_the_ledger_is_founded_with_as_many_validators_as_there_are(
    services: dict[str, Values],
) -> None:
    assert settings_of(services["genesis"])["NOCTURNE_VALIDATORS"] == str(len(VALIDATORS))
    places = {target for target, _ in mounts(services["genesis"]).values()}
    for name in VALIDATORS:
        assert {f"{HOME}/{name}", f"{HOME}/keys/{name}"} <= places
    given = {name for name in services if name.startswith("consensus-")}
    assert given == set(VALIDATORS)


def test_each_validator_is_told_of_all_and_shares_nothing_with_another(
    services: dict[str, Values],
) -> None:
    peers = ",".join(f"{name}:7400" for name in VALIDATORS)
    owners: dict[str, str] = {}
    for name in VALIDATORS:
        assert settings_of(services[name])["NOCTURNE_PEERS"] == peers
        for volume in set(mounts(services[name])) - {"genesis"}:
            assert owners.setdefault(volume, name) == name, volume
        for other in VALIDATORS:
            assert networks(services[name]) & networks(services[other])
    published = [services[name]["ports"] for name in VALIDATORS]
    assert len({str(one) for one in published}) == len(VALIDATORS)


def test_a_file_of_certificates_has_whom_the_validators_trust_among_each_other() -> None:
    overlay = yaml.safe_load(SECURED.read_text())["services"]
    for name in VALIDATORS:
        assert settings_of(overlay[name])["NOCTURNE_PEERS_CA_FILE"] == "/run/secrets/tls/ca.crt"


def test_a_validator_more_has_everything_to_itself_and_the_others_stay_as_they_are() -> None:
    before, model = normalised(FILE), normalised(FILE, MORE)
    more = model["services"]
    for name, one in before["services"].items():
        assert more[name] == one, name
    assert set(more) - set(before["services"]) == {"secrets-4", "validator-4", "consensus-4"}
    own = {"consensus-4", "keys-consensus-4", "secrets-consensus-4"}
    assert set(model["volumes"]) - set(before["volumes"]) == own

    def volumes(name: str) -> dict[str, tuple[str, bool]]:
        return {
            one["source"]: (one["target"], one.get("read_only", False))
            for one in more[name]["volumes"]
        }

    assert volumes("consensus-4") == {
        "consensus-4": (HOME, False),
        "genesis": ("/etc/nocturne/genesis", True),
        "keys-consensus-4": ("/run/secrets/validator", True),
        "secrets-consensus-4": ("/run/secrets/consensus", True),
    }
    assert set(volumes("validator-4")) == {"consensus-4", "genesis", "keys-consensus-4"}
    assert set(volumes("secrets-4")) == {"secrets", *own}
    requests = [parse_request(one) for one in more["secrets-4"]["command"][3:]]
    folders = {
        target.removeprefix(f"{HANDED}/places/") for target, _ in volumes("secrets-4").values()
    }
    assert {place for one in requests for place in one.places} == folders - {f"{HANDED}/kept"}
    # As any validator, but for what is its own.
    for name in ("environment", "command", "networks", "healthcheck", "user", "read_only"):
        assert more["consensus-4"][name] == more["consensus-0"][name], name
    (port,) = more["consensus-4"]["ports"]
    taken = {one["published"] for name in SERVICES for one in more[name].get("ports", ())}
    assert (port["published"], port["target"]) == ("7414", 7400)
    assert port["published"] not in taken
    known = {PREFIX + field.upper() for field in genesis.AdmitSettings.model_fields}
    given = more["validator-4"]["environment"]
    assert set(given) <= known
    assert given[f"{PREFIX}KEY_FILE"] == more["consensus-4"]["environment"][f"{PREFIX}KEY_FILE"]
    assert given[f"{PREFIX}HOME_DIR"] == more["consensus-4"]["environment"][f"{PREFIX}HOME_DIR"]
    assert set(more["consensus-4"]["depends_on"]) >= {"validator-4"}


# Networks ---------------------------------------------------------------------------------------


def test_query_reaches_neither_kafka_nor_command(services: dict[str, Values]) -> None:
    for other in ("kafka", "command", *VALIDATORS, "signing", "registry"):
        assert not networks(services["query"]) & networks(services[other]), other


def test_command_and_consensus_and_signing_do_not_reach_the_database(
    services: dict[str, Values],
) -> None:
    for name in ("command", *VALIDATORS, "signing", "kafka"):
        assert not networks(services[name]) & networks(services["postgres"]), name


def test_log_and_database_are_on_networks_without_a_way_out(
    file: Values, services: dict[str, Values]
) -> None:
    for name in ("kafka", "postgres", "registry", "store"):
        for one in networks(services[name]):
            assert file["networks"][one]["internal"] is True
        assert "ports" not in services[name]


def test_what_is_published_is_published_to_this_machine_alone(services: dict[str, Values]) -> None:
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert set(published) == {"command", "query", *VALIDATORS, "grafana"}
    for name, ports in published.items():
        inside = ":3000" if name == "grafana" else ":7400"
        here = ("127.0.0.1:", "${NOCTURNE_PUBLISH:-127.0.0.1}:")
        assert all(one.startswith(here) and one.endswith(inside) for one in ports)


# What is watched --------------------------------------------------------------------------------


def test_prometheus_reads_every_service_and_has_a_network_with_each(
    services: dict[str, Values],
) -> None:
    settings = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    targets = {one for static in job["static_configs"] for one in static["targets"]}
    assert targets == {f"{name}:7500" for name in SERVICES}
    for name in SERVICES:
        assert networks(services["prometheus"]) & networks(services[name]), name
        assert settings_of(services[name])["NOCTURNE_METRICS_LISTEN"] == "0.0.0.0:7500"


def test_what_is_provisioned_is_there_and_is_mounted_where_it_is_looked_for(
    services: dict[str, Values],
) -> None:
    found: dict[str, str] = {}
    for name in ("prometheus", "grafana"):
        for one in services[name]["volumes"]:
            source, target, *mode = one.split(":")
            if source.startswith("./"):
                assert (ROOT / source).is_dir()
                assert mode == ["ro"]
                found[target] = source
    assert (ROOT / found["/etc/prometheus"] / "prometheus.yml").exists()
    provider = yaml.safe_load(
        (ROOT / found["/etc/grafana/provisioning"] / "dashboards/nocturne.yml").read_text()
    )
    dashboards = found[provider["providers"][0]["options"]["path"]]
    assert list((ROOT / dashboards).glob("*.json"))
    source = yaml.safe_load(
        (ROOT / found["/etc/grafana/provisioning"] / "datasources/prometheus.yml").read_text()
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert networks(services["prometheus"]) & networks(services["grafana"])


# How it runs ------------------------------------------------------------------------------------


def test_every_process_of_ours_is_locked_in(services: dict[str, Values]) -> None:
    for name in (*SERVICES, *JOBS):
        one = services[name]
        assert one["read_only"] is True
        assert one["user"] == ("0:0" if name == "secrets" else "10001:10001")
        assert one["tmpfs"] == ["/tmp:mode=1777,size=64m"]


def test_every_process_has_no_capability_and_bounds(services: dict[str, Values]) -> None:
    for name, one in services.items():
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "pids_limit", "logging", "restart"} <= set(one), name
        assert one.get("cap_add", []) == (["CHOWN"] if name == "secrets" else []), name
        assert not {"privileged", "pid", "ipc", "devices"} & set(one), name


def test_the_job_that_is_root_has_no_network(services: dict[str, Values]) -> None:
    assert services["secrets"]["network_mode"] == "none"
    assert services["genesis"]["network_mode"] == "none"


def test_a_service_is_left_the_time_to_drain_before_it_is_killed(
    services: dict[str, Values],
) -> None:
    for name in SERVICES:
        grace = services[name]["stop_grace_period"]
        assert float(grace.removesuffix("s")) > STOP_SECONDS_MAX + 1.0


def test_services_come_back_and_jobs_do_not(services: dict[str, Values]) -> None:
    for name, one in services.items():
        wanted = {"demo": "no", "rebuild": "no"}.get(
            name, "on-failure:5" if name in JOBS else "unless-stopped"
        )
        assert one["restart"] == wanted, name


def test_everything_waits_for_the_health_or_the_end_of_what_it_needs(
    services: dict[str, Values],
) -> None:
    for name, one in services.items():
        for earlier, asked in one.get("depends_on", {}).items():
            ends = earlier in JOBS
            assert asked["condition"] == (
                "service_completed_successfully" if ends else "service_healthy"
            ), f"{name}: {earlier}"
            assert ends == (services[earlier]["healthcheck"].get("disable") is True)


def test_the_end_of_every_job_is_waited_for_so_that_up_wait_returns(
    services: dict[str, Values],
) -> None:
    """Compose's --wait takes a container that ended for a failure unless somebody needs its end."""
    waited_for = {earlier for one in services.values() for earlier in one.get("depends_on", {})}
    assert {*JOBS} - {*BY_HAND} <= waited_for


def test_each_service_writes_into_a_volume_of_its_own(services: dict[str, Values]) -> None:
    for name in SERVICES:
        assert settings_of(services[name])["NOCTURNE_HOME_DIR"] == HOME
        assert mounts(services[name])[name] == (HOME, False)


# Durability -------------------------------------------------------------------------------------


def test_one_broker_flushes_and_says_so(services: dict[str, Values]) -> None:
    job = settings_of(services["topics"])
    assert job["NOCTURNE_TOPIC_REPLICAS"] == "1"
    commands = next(one for one in topics.plan(4, 1) if one.name == "nocturne.commands.v1")
    assert commands.settings["flush.messages"] == "1"
    assert settings_of(services["command"])["NOCTURNE_DURABILITY"] == "flushed"


def test_three_brokers_hold_every_record_twice_before_it_is_accepted() -> None:
    overlay = yaml.safe_load(REPLICATED.read_text())["services"]
    job, broker = (settings_of(overlay[name]) for name in ("topics", "kafka-3"))
    assert job["NOCTURNE_TOPIC_REPLICAS"] == "3"
    assert job["NOCTURNE_TOPIC_MIN_INSYNC_REPLICAS"] == "2"
    assert settings_of(overlay["command"])["NOCTURNE_DURABILITY"] == "replicated"
    assert broker["KAFKA_MIN_INSYNC_REPLICAS"] == "2"
    assert broker["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "2"
    assert broker["KAFKA_CONTROLLER_QUORUM_VOTERS"].count("@") == 3


def test_kafka_asks_who_comes_and_grants_nothing_that_is_not_listed(
    services: dict[str, Values],
) -> None:
    broker = settings_of(services["kafka"])
    assert "PLAINTEXT:PLAINTEXT" not in broker["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    assert broker["KAFKA_AUTHORIZER_CLASS_NAME"].endswith(".StandardAuthorizer")
    assert broker["KAFKA_ALLOW_EVERYONE_IF_NO_ACL_FOUND"] == "false"
    superusers = {one.name for one in list_of_rights().principals if one.superuser}
    listed = set(broker["KAFKA_SUPER_USERS"].replace("User:", "").split(";"))
    assert listed == superusers | {"broker"}
    assert broker["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
