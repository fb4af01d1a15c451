"""ConfigMaps by HTTP: what is sent, what is believed, and what each refusal means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chart.api_server import ApiServer, Refusal, serving

from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.deploy import config_maps
from nocturne.deploy.config_maps import (
    BODY_BYTES_MAX,
    ConfigMap,
    ConfigMaps,
    Conflict,
    Forbidden,
    decode_config_map,
)

NAMESPACE = "audit"
RENDERED: list[dict[str, Any]] = [
    {"kind": "ServiceAccount", "metadata": {"name": "writer"}},
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "book", "labels": {"kept": "yes"}},
        "data": {"title": "old"},
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "closed"}},
    {
        "kind": "Role",
        "metadata": {"name": "write"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": ["book", "gone"],
                "verbs": ["get", "patch"],
            }
        ],
    },
    {
        "kind": "RoleBinding",
        "metadata": {"name": "write"},
        "roleRef": {"name": "write"},
        "subjects": [{"kind": "ServiceAccount", "name": "writer", "namespace": NAMESPACE}],
    },
]


@pytest.fixture
def api() -> ApiServer:
    return ApiServer(NAMESPACE, RENDERED)


@pytest.fixture
def client(api: ApiServer, tmp_path: Path) -> Iterator[ConfigMaps]:
    folder = tmp_path / "account"
    with serving(api, folder) as address:
        (folder / "namespace").write_text(NAMESPACE + "\n")
        (folder / "token").write_text(api.token_for("writer") + "\n")
        yield ConfigMaps(address.host, address.port, folder)


def test_what_is_added_stands_beside_what_was_there(api: ApiServer, client: ConfigMaps) -> None:
    read = client.get("book")
    assert read.data == {"title": "old"}
    assert not read.immutable
    written = client.add(read, texts={"page": "1"}, binary={"cover": b"\x00\xff"}, immutable=True)
    assert written.data == {"title": "old", "page": "1"}
    assert written.binary == {"cover": b"\x00\xff"}
    assert written.immutable
    assert client.get("book") == written
    assert api.config_maps["book"]["metadata"]["labels"] == {"kept": "yes"}


def test_what_is_removed_is_gone_and_the_rest_stays(client: ConfigMaps) -> None:
    read = client.add(client.get("book"), texts={"page": "1"})
    assert client.remove(read, "title").data == {"page": "1"}
    with pytest.raises(Conflict):
        client.remove(read, "page")
    assert client.get("book").data == {"page": "1"}


def test_of_two_writers_one_is_told_that_it_is_late(client: ConfigMaps) -> None:
    read = client.get("book")
    client.add(read, texts={"a": "1"})
    with pytest.raises(Conflict, match="somebody else"):
        client.add(read, texts={"a": "2"})
    assert client.get("book").data["a"] == "1"


def test_what_a_role_does_not_name_and_what_is_not_there_are_told_apart(
    client: ConfigMaps,
) -> None:
    with pytest.raises(Forbidden, match='"closed" is forbidden'):
        client.get("closed")
    with pytest.raises(Unavailable, match="the ConfigMap gone is not there"):
        client.get("gone")


def test_a_server_that_is_busy_or_away_may_be_asked_again(
    api: ApiServer, client: ConfigMaps
) -> None:
    def busy(method: str, name: str) -> None:
        raise Refusal(429, "too many\nrequests")

    api.before = busy
    with pytest.raises(Unavailable, match=r"answered 429 \(too many\?requests\)"):
        client.get("book")
    with pytest.raises(Unavailable, match="cannot be asked"):
        ConfigMaps(client.host, 1, client.folder).get("book")


def test_a_token_is_read_for_each_request_and_is_in_no_message(
    api: ApiServer, client: ConfigMaps
) -> None:
    (client.folder / "token").write_text("stolen-token")
    with pytest.raises(Forbidden) as refused:
        client.get("book")
    assert "stolen-token" not in str(refused.value)
    (client.folder / "token").write_text(api.token_for("writer"))
    assert client.get("book").name == "book"
    for unusable in ("", "zwei\nZeilen", "x" * 20_000):
        (client.folder / "token").write_text(unusable)
        with pytest.raises(NocturneError) as fault:
            client.get("book")
        assert not unusable or unusable not in str(fault.value)


def test_an_answer_that_is_too_long_is_refused(
    api: ApiServer, client: ConfigMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_maps, "BODY_BYTES_MAX", 40)
    with pytest.raises(Malformed, match="at most 40 bytes"):
        client.get("book")


GOOD: dict[str, Any] = {
    "kind": "ConfigMap",
    "apiVersion": "v1",
    "metadata": {"name": "book", "resourceVersion": "7"},
}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Secret"},
        {"apiVersion": "v2"},
        {"metadata": {"name": "book"}},
        {"metadata": {"name": "Book/..", "resourceVersion": "7"}},
        {"metadata": {"name": "book", "resourceVersion": "seven"}},
        {"data": {"a": 1}},
        {"data": ["a"]},
        {"binaryData": {"a": "not base64"}},
        {"binaryData": {"a": None}},
        {"immutable": "yes"},
    ],
    ids=repr,
)
def test_what_is_no_config_map_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode_config_map(json.dumps({**GOOD, **change}).encode())


def test_a_config_map_without_values_has_none() -> None:
    expected = ConfigMap("book", "7")
    assert decode_config_map(json.dumps(GOOD).encode()) == expected
    empty = {**GOOD, "data": None, "binaryData": {}}
    assert decode_config_map(json.dumps(empty).encode()) == expected
    with pytest.raises(Malformed, match="at most"):
        decode_config_map(b" " * (BODY_BYTES_MAX + 1))
