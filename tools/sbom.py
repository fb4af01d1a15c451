"""Write the bill of materials of the container image's Python packages: CycloneDX 1.6, JSON.

`python tools/sbom.py [file]` reads requirements/runtime.lock, which says what may be installed and
by which hashes, and the metadata of this environment's packages, which have their licences. It
fails for a package that is not here in the locked version. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "requirements" / "runtime.lock"
NAMESPACE: Final = uuid.UUID("6a7f3b54-7a3c-5d0e-9a64-0d1f5c1d9c11")
"""Of serial numbers: any, always the same."""

_PIN: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s\\]+)", re.IGNORECASE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_IDENTIFIERS: Final = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0")
"""Of SPDX, for packages that name one where older metadata had any text."""
_CLASSIFIER: Final = "License :: OSI Approved :: "
_CLASSIFIED: Final = {"MIT License": "MIT", "ISC License (ISCL)": "ISC"}
"""Classifiers that are one licence; "BSD License" is several, and stays what it is."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a lock file: the package and the files that may be installed for it."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(text: str) -> Iterator[Pin]:
    """The packages of a lock file. ValueError for one without a hash."""
    for entry in text.replace("\\\n", " ").splitlines():
        found = _PIN.match(entry)
        if found is None:
            continue
        hashes = tuple(sorted(_HASH.findall(entry)))
        if not hashes:
            raise ValueError(f"{found[1]} {found[2]} has no hash")
        yield Pin(found[1].lower(), found[2], hashes)


def licences_of(about: metadata.PackageMetadata) -> list[dict[str, Any]]:
    """As CycloneDX says them: an expression of SPDX, an identifier of it, or the package's own
    words. Nothing is guessed.
    """
    expression = about.get("License-Expression")
    if expression:
        return [{"expression": expression}]
    own = (about.get("License") or "").strip()
    if own in _IDENTIFIERS:
        return [{"license": {"id": own}}]
    classified = [
        one.removeprefix(_CLASSIFIER)
        for one in about.get_all("Classifier") or ()
        if one.startswith(_CLASSIFIER)
    ]
    if classified:
        return [_licence(one) for one in sorted(classified)]
    return [{"license": {"name": own.splitlines()[0][:80]}}] if own else []


def _licence(classified: str) -> dict[str, Any]:
    known = _CLASSIFIED.get(classified)
    return {"license": {"name": classified} if known is None else {"id": known}}


def component(pin: Pin) -> dict[str, Any]:
    """One package. LookupError when this environment has it in another version, or not at all."""
    about = metadata.metadata(pin.name)
    if about["Version"] != pin.version:
        raise LookupError(f"{pin.name}: expected {pin.version} here, got {about['Version']}")
    licences = licences_of(about)
    if not licences:
        raise LookupError(f"{pin.name} {pin.version} names no licence: look, and say it here")
    purl = f"pkg:pypi/{pin.name}@{pin.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        "licenses": licences,
        # One of these is the file that was installed, by platform: the lock lets no other in.
        "hashes": [{"alg": "SHA-256", "content": one} for one in pin.hashes],
    }


def bill(lock: str, version: str) -> dict[str, Any]:
    """The whole document."""
    components = [component(pin) for pin in pins(lock)]
    own = f"pkg:pypi/nocturne@{version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256(lock.encode()).hexdigest())}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "nocturne",
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
        "dependencies": [
            {"ref": own, "dependsOn": [one["bom-ref"] for one in components]},
            *({"ref": one["bom-ref"]} for one in components),
        ],
    }


def main() -> int:
    """Write to the file that is named, or to stdout."""
    try:
        made = bill(LOCK.read_text(), metadata.version("nocturne"))
    except (LookupError, ValueError, OSError) as fault:
        print(f"sbom: {fault}", file=sys.stderr)
        return 1
    text = json.dumps(made, indent=2) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(sys.argv[1]).write_text(text)
        print(f"{sys.argv[1]}: {len(made['components'])} packages")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
