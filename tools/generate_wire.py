"""Generate what comes from proto/: `make proto` writes it, `make check` verifies it is current.

From every proto/nocturne/<noun>/v<n>/*.proto: services/nocturne/wire/<noun>/v<n>/ (messages, gRPC,
types). From every *.avsc there: services/nocturne/wire/schemas/<name>.avsc.
"""

import argparse
import filecmp
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
WIRE = Path("services/nocturne/wire")

WIRE_DOCSTRING = (
    '"""Generated from proto/ by `make proto`: messages, gRPC stubs and Avro schemas."""\n'
)
# A reference to a generated module, `nocturne.<noun>.v1.<file>_pb2` or `from nocturne.<noun>.v1
# import`; service names inside the stubs (`/nocturne.<noun>.v1.Service/`) must stay as they are.
MODULE_REFERENCE = re.compile(r"\bnocturne\.(\w+\.v\d+)(?=\.\w+_pb2| import )")


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate services/nocturne/wire from proto/.")
    parser.add_argument("--check", action="store_true", help="verify only, change nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        _generate(fresh)
        stale = _differences(fresh)
        if check and stale:
            print(f"Generated code is not current ({', '.join(stale)}): run 'make proto'.")
            return 1
        if not check:
            _install(fresh)
    return 0


def _generate(target: Path) -> None:
    wire = target / WIRE
    wire.mkdir(parents=True)
    (wire / "__init__.py").write_text(WIRE_DOCSTRING)
    protos = sorted(PROTO.glob("nocturne/**/*.proto"))
    if protos:
        _compile(protos, target)
    (wire / "schemas").mkdir()
    (wire / "schemas/__init__.py").write_text('"""The frozen Avro schemas, one file each."""\n')
    for path in sorted(PROTO.glob("nocturne/**/*.avsc")):
        shutil.copyfile(path, wire / "schemas" / path.name)


def _compile(protos: list[Path], target: Path) -> None:
    raw = target / "raw"
    raw.mkdir()
    plugins = Path(sys.executable).parent
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={resources.files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={raw}",
            f"--grpc_python_out={raw}",
            f"--mypy_out=quiet:{raw}",
            f"--mypy_grpc_out=quiet:{raw}",
            *map(str, protos),
        ]
    )
    if code != 0:
        sys.exit("The protos do not compile: see above.")
    for path in sorted((raw / "nocturne").rglob("*.py*")):
        placed = target / WIRE / path.relative_to(raw / "nocturne")
        placed.parent.mkdir(parents=True, exist_ok=True)
        placed.write_text(MODULE_REFERENCE.sub(r"nocturne.wire.\1", path.read_text()))
        for package in (placed.parent, placed.parent.parent):
            (package / "__init__.py").write_text("")
    (target / WIRE / "__init__.py").write_text(WIRE_DOCSTRING)
    shutil.rmtree(raw)


def _differences(fresh: Path) -> list[str]:
    def files(root: Path) -> set[Path]:
        found = (path for path in (root / WIRE).rglob("*") if path.is_file())
        return {path.relative_to(root) for path in found if path.suffix != ".pyc"}

    return sorted(
        str(path)
        for path in files(fresh) | files(ROOT)
        if not (fresh / path).exists()
        or not (ROOT / path).exists()
        or not filecmp.cmp(fresh / path, ROOT / path, shallow=False)
    )


def _install(fresh: Path) -> None:
    """Replace the generated tree; files that are the same keep their time."""
    stale = _differences(fresh)
    for name in stale:
        if (fresh / name).exists():
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, ROOT / name)
        else:
            (ROOT / name).unlink()


if __name__ == "__main__":
    sys.exit(main())
