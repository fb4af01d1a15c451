"""ConfigMaps of one namespace, read and changed by HTTP, with the right of a service account.

The Kubernetes API is asked for one object by its name and for nothing else, so its own client (a
package with a hundred models) would be more than what it replaces. What is asked and how:

    GET    /api/v1/namespaces/<namespace>/configmaps/<name>
    PATCH  the same, `application/merge-patch+json`, with the resourceVersion that was read

The API server refuses a patch whose resourceVersion is not the newest, so of two writers one wins.
Token and CA are read from their files for each request: a token is replaced while it is used.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.json_fields import Fields
from nocturne.core.strict_json import JsonValue, parse_json

REQUEST_SECONDS_MAX: Final = 10.0
"""For each step of a request: an API server that is well answers within one second."""
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""A ConfigMap has at most 1 MiB of data, which base64 and its manager's fields add to."""
DATA_BYTES_MAX: Final = 1024 * 1024
"""Of a ConfigMap's values together, as the API server allows."""
TOKEN_BYTES_MAX: Final = 16 * 1024
DEPTH_MAX: Final = 64
"""The fields' managers are listed as deep as the object is."""
SHOWN_CHARACTERS_MAX: Final = 200

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_VERSION: Final = re.compile(r"[0-9]{1,20}\Z")


class Forbidden(NocturneError):  # noqa: N818
    """The service account may not do this, or is not known: its Role or its token is wrong."""


class Conflict(NocturneError):  # noqa: N818
    """Somebody else has written since this was read: read again."""


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """One object, as much of it as anybody here reads. `version` is what a patch must name."""

    name: str
    version: str
    data: Mapping[str, str] = field(default_factory=dict)
    binary: Mapping[str, bytes] = field(default_factory=dict)
    immutable: bool = False


def decode_config_map(data: bytes) -> ConfigMap:
    """The object in an API server's answer; `Malformed` when it is none."""
    fields = Fields.of(parse_json(data, BODY_BYTES_MAX, DEPTH_MAX), "object")
    if fields.text("kind") != "ConfigMap" or fields.text("apiVersion") != "v1":
        raise Malformed("object: expected a ConfigMap of v1")
    metadata = fields.object("metadata")
    name, version = metadata.text("name"), metadata.text("resourceVersion")
    if _NAME.match(name) is None or _VERSION.match(version) is None:
        raise Malformed("object.metadata: expected a name and a resourceVersion")
    texts = {key: _text(key, value) for key, value in _members(fields, "data")}
    binary = {key: _bytes(key, value) for key, value in _members(fields, "binaryData")}
    immutable = fields.has("immutable") and fields.boolean("immutable")
    return ConfigMap(name, version, texts, binary, immutable)


@dataclass(frozen=True, slots=True)
class ConfigMaps:
    """The API server at `host` and `port`, as the service account in `folder` sees it: `token`,
    `ca.crt` and `namespace`.
    """

    host: str
    port: int
    folder: Path

    def get(self, name: str) -> ConfigMap:
        """The ConfigMap of this name. `Unavailable` when the server is not there or has it not
        yet, `Forbidden` when it may not be read.
        """
        return self._answer(name, "GET", None)

    def add(
        self,
        known: ConfigMap,
        *,
        texts: Mapping[str, str] | None = None,
        binary: Mapping[str, bytes] | None = None,
        immutable: bool = False,
    ) -> ConfigMap:
        """Add values to a ConfigMap that was read. `Conflict` when it has changed since; otherwise
        as `get`. What else the object has stays as it is.
        """
        patch: dict[str, JsonValue] = {}
        if texts:
            patch["data"] = dict(texts)
        if binary:
            patch["binaryData"] = {
                key: base64.b64encode(value).decode("ascii") for key, value in binary.items()
            }
        if immutable:
            patch["immutable"] = True
        return self._patched(known, patch)

    def remove(self, known: ConfigMap, key: str) -> ConfigMap:
        """Take a text out of a ConfigMap that was read; otherwise as `add`."""
        return self._patched(known, {"data": {key: None}})

    def _patched(self, known: ConfigMap, change: Mapping[str, JsonValue]) -> ConfigMap:
        patch = {"metadata": {"resourceVersion": known.version}, **change}
        return self._answer(known.name, "PATCH", json.dumps(patch).encode())

    def _answer(self, name: str, method: str, body: bytes | None) -> ConfigMap:
        status, data = self._ask(name, method, body)
        where = f"the ConfigMap {name}"
        match status:
            case 200:
                found = decode_config_map(data)
                if found.name != name:
                    raise Malformed(f"object.metadata.name: expected {name}, got {found.name}")
                return found
            case 401 | 403:
                raise Forbidden(f"{where}: {method} is not allowed ({_reason(data)})")
            case 404:
                raise Unavailable(f"{where} is not there: the chart makes it")
            case 409:
                raise Conflict(f"{where} has been written by somebody else")
            case 422:
                raise Forbidden(f"{where}: {method} is not possible ({_reason(data)})")
            case _:
                raise Unavailable(f"{where}: the API server answered {status} ({_reason(data)})")

    def _ask(self, name: str, method: str, body: bytes | None) -> tuple[int, bytes]:
        assert _NAME.match(name), f"name of a ConfigMap: got {name!r}"
        namespace = self._read("namespace").decode("ascii", "replace").strip()
        if _NAME.match(namespace) is None:
            raise NocturneError(f"{self.folder / 'namespace'}: expected the name of a namespace")
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token()}",
        }
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            trust = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=REQUEST_SECONDS_MAX, context=trust
            )
            try:
                path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                data = answer.read(BODY_BYTES_MAX + 1)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as fault:
            raise Unavailable(
                f"the API server at {self.host}:{self.port} cannot be asked ({fault!r})"
            ) from fault
        if len(data) > BODY_BYTES_MAX:
            raise Malformed(f"object: expected at most {BODY_BYTES_MAX} bytes")
        return answer.status, data

    def _token(self) -> str:
        token = self._read("token").decode("ascii", "replace").strip()
        if not token or any(not "!" <= character <= "~" for character in token):
            # Without what it holds: it is a secret.
            raise NocturneError(f"{self.folder / 'token'}: expected a service account's token")
        return token

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                data = file.read(TOKEN_BYTES_MAX + 1)
        except OSError as fault:
            raise NocturneError(f"{path}: cannot be read ({fault.strerror})") from fault
        if len(data) > TOKEN_BYTES_MAX:
            raise NocturneError(f"{path}: expected at most {TOKEN_BYTES_MAX} bytes")
        return data


def _members(fields: Fields, name: str) -> list[tuple[str, JsonValue]]:
    """The members of an object that may be missing or null."""
    value = fields.value(name) if fields.has(name) else None
    if value is None:
        return []
    if not isinstance(value, dict):
        raise Malformed(f"object.{name}: expected an object")
    return list(value.items())


def _text(key: str, value: JsonValue) -> str:
    if not isinstance(value, str) or len(value) > DATA_BYTES_MAX:
        raise Malformed(f"object.data.{key[:SHOWN_CHARACTERS_MAX]}: expected a string")
    return value


def _bytes(key: str, value: JsonValue) -> bytes:
    try:
        return base64.b64decode(_text(key, value).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as fault:
        raise Malformed(
            f"object.binaryData.{key[:SHOWN_CHARACTERS_MAX]}: expected base64"
        ) from fault


def _reason(data: bytes) -> str:
    """What the API server says of it: the message of a Status, printable and short."""
    try:
        message = Fields.of(parse_json(data, BODY_BYTES_MAX, DEPTH_MAX), "status").text("message")
    except Malformed:
        return "without a reason"
    shown = "".join(character if character.isprintable() else "?" for character in message)
    return shown[:SHOWN_CHARACTERS_MAX]
