"""The part of a Kubernetes API server that the founding needs, as strict as the real one.

It has the ConfigMaps that the chart renders, and lets a service account do what the rendered
Roles and RoleBindings allow: an account, a verb or a name that they do not have is 403, an unknown
token 401, a path or method that is not ConfigMaps' 404 or 405, a patch of another type 415, an old
resourceVersion 409, another value in an immutable ConfigMap 422.
"""

from __future__ import annotations

import base64
import copy
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VERBS: Final = {"GET": "get", "PATCH": "patch"}
BODY_BYTES_MAX: Final = 3 * 1024 * 1024
DATA_BYTES_MAX: Final = 1024 * 1024

Object = dict[str, Any]


@dataclass
class Refusal(Exception):  # noqa: N818
    """An answer that is none of the object: a Status."""

    code: int
    message: str


@dataclass
class ApiServer:
    """The state of one namespace, and who may do what in it."""

    namespace: str
    rendered: Sequence[Object]
    tokens: dict[str, str] = field(default_factory=dict)
    """Token → service account."""
    before: Callable[[str, str], None] = lambda method, name: None
    """Called with each request before it is decided; may raise `Refusal`."""
    log: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Account, method, name and code of each request."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 100
        self.config_maps: dict[str, Object] = {}
        for one in self.rendered:
            if one["kind"] == "ConfigMap":
                stored = copy.deepcopy(one)
                stored["metadata"].update(namespace=self.namespace, managedFields=[_MANAGED])
                self._store(stored)

    def token_for(self, account: str) -> str:
        """A token of a service account that the chart makes."""
        names = {o["metadata"]["name"] for o in self.rendered if o["kind"] == "ServiceAccount"}
        assert account in names, account
        token = f"token-of-{account}"
        self.tokens[token] = account
        return token

    def binary(self, name: str, key: str) -> bytes | None:
        """What stands in a ConfigMap, as a reader of the volume would see it."""
        value = self.config_maps[name].get("binaryData", {}).get(key)
        return None if value is None else base64.b64decode(value)

    def answer(
        self, method: str, path: str, authorization: str, content_type: str, body: bytes
    ) -> tuple[int, Object]:
        """One request, decided."""
        account, name = "", ""
        try:
            account = self._account(authorization)
            name = self._name(method, path)
            self.before(method, name)
            self._authorize(account, VERBS[method], name)
            with self._lock:
                if name not in self.config_maps:
                    raise Refusal(404, f'configmaps "{name}" not found')
                if method == "PATCH":
                    self._patch(name, content_type, body)
                found = copy.deepcopy(self.config_maps[name])
            self.log.append((account, method, name, 200))
            return 200, found
        except Refusal as refusal:
            self.log.append((account, method, name, refusal.code))
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
            return refusal.code, {**status, "message": refusal.message, "code": refusal.code}

    def _account(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            raise Refusal(401, "Unauthorized")
        return self.tokens[token]

    def _name(self, method: str, path: str) -> str:
        prefix = f"/api/v1/namespaces/{self.namespace}/configmaps/"
        name = path.removeprefix(prefix)
        if name == path or not name or "/" in name or "?" in name:
            raise Refusal(404, "the server could not find the requested resource")
        if method not in VERBS:
            raise Refusal(405, "the server does not allow this method on the requested resource")
        return name

    def _authorize(self, account: str, verb: str, name: str) -> None:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": self.namespace}
        roles = {
            one["roleRef"]["name"]
            for one in self.rendered
            if one["kind"] == "RoleBinding" and subject in one["subjects"]
        }
        for one in self.rendered:
            if one["kind"] != "Role" or one["metadata"]["name"] not in roles:
                continue
            for rule in one["rules"]:
                # No resourceNames means every name, as in Kubernetes.
                names = rule.get("resourceNames", [name])
                if (
                    "" in rule["apiGroups"]
                    and "configmaps" in rule["resources"]
                    and verb in rule["verbs"]
                    and name in names
                ):
                    return
        raise Refusal(
            403,
            f'configmaps "{name}" is forbidden: User "system:serviceaccount:{self.namespace}:'
            f'{account}" cannot {verb} resource "configmaps"',
        )

    def _patch(self, name: str, content_type: str, body: bytes) -> None:
        if content_type != "application/merge-patch+json":
            raise Refusal(415, f"the body was in an unknown format: {content_type}")
        patch = json.loads(body)
        current = self.config_maps[name]
        version = patch.get("metadata", {}).get("resourceVersion")
        if version is not None and version != current["metadata"]["resourceVersion"]:
            raise Refusal(409, "the object has been modified; please apply your changes")
        changed = _merged(copy.deepcopy(current), patch)
        if unknown := changed.keys() - _FIELDS:
            raise Refusal(400, f"unknown fields {sorted(unknown)}")
        if current.get("immutable") and any(
            changed.get(part) != current.get(part) for part in ("data", "binaryData", "immutable")
        ):
            raise Refusal(422, "data: Forbidden: field is immutable when `immutable` is set")
        size = sum(len(value) for value in changed.get("data", {}).values())
        for value in changed.get("binaryData", {}).values():
            size += len(base64.b64decode(value, validate=True))
        if size > DATA_BYTES_MAX:
            raise Refusal(422, "must have at most 1048576 bytes")
        self._store(changed)

    def _store(self, one: Object) -> None:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)
        self.config_maps[one["metadata"]["name"]] = one


_MANAGED: Final = {"manager": "helm", "operation": "Update", "fieldsV1": {"f:data": {}}}
_FIELDS: Final = {"apiVersion", "kind", "metadata", "data", "binaryData", "immutable"}


def _merged(target: Object, patch: Object) -> Object:
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            target[key] = _merged(dict(target.get(key) or {}), value)
        else:
            target[key] = value
    return target


@dataclass(frozen=True)
class Address:
    """Where it listens, and the file of the authority that it shows a certificate of."""

    host: str
    port: int
    ca: Path


@contextmanager
def serving(api: ApiServer, folder: Path) -> Iterator[Address]:
    """Serve it over TLS on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, BODY_BYTES_MAX))
            code, found = api.answer(
                self.command,
                self.path,
                self.headers.get("Authorization", ""),
                self.headers.get("Content-Type", ""),
                body,
            )
            data = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    authority, chain = _certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Address("127.0.0.1", server.server_address[1], authority)
        finally:
            server.shutdown()
            thread.join()


def _certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and a file with the server's key and certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    issuer_key, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    now = datetime.now(UTC)

    def builder(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    root = (
        builder(issuer, issuer_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    leaf = (
        builder(x509.Name([]), key.public_key())
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True
        )
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    authority, chain = folder / "ca.crt", folder / "server.pem"
    authority.write_bytes(root.public_bytes(pem))
    chain.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + leaf.public_bytes(pem)
    )
    return authority, chain
